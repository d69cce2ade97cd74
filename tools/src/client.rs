//! A blocking client for the command line.

use std::path::Path;
use std::time::Duration;

use hybster::client::{CallError, Client, ClientOptions};
use hybster::{ClientId, ClientKeys, Group};

use crate::Failure;

/// A connected client.
pub(crate) struct Connected(Client);

/// Connects under a client identity; connecting and every request may take `patience`.
pub(crate) fn connect(group: &Path, client: u32, patience: Duration) -> Result<Connected, Failure> {
    let group = Group::load(group)?;
    let keys = ClientKeys::load(&group, group.directory(), ClientId(client))?;
    let options = ClientOptions {
        sessions: 1,
        request_timeout: patience,
        connect_timeout: patience,
        ..ClientOptions::default()
    };
    Ok(Connected(Client::connect(&group, &keys, options)?))
}

impl Connected {
    /// An operation that the group agrees on.
    pub(crate) fn call(&self, operation: &[u8]) -> Result<Vec<u8>, Failure> {
        told(self.0.call(operation).map(|result| result.to_vec()))
    }

    /// An operation that changes nothing.
    pub(crate) fn query(&self, operation: &[u8]) -> Result<Vec<u8>, Failure> {
        told(self.0.query(operation).map(|result| result.to_vec()))
    }
}

fn told(result: Result<Vec<u8>, CallError>) -> Result<Vec<u8>, Failure> {
    result.map_err(|error| match error {
        CallError::Timeout => Failure::new(format!(
            "{error}; look at `hybster status`: more than f replicas may be down or behind"
        )),
        error => error.into(),
    })
}
