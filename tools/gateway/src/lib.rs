//! A replicated store that Redis clients speak to.
#![forbid(unsafe_code)]

mod glob;
mod number;
mod operation;
mod reply;
mod server;
mod service;

pub use server::{Gateway, GatewayError, GatewayOptions, GatewayStopper};
pub use service::RedisService;
