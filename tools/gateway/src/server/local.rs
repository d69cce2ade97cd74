//! What a gateway answers itself: who speaks, in which protocol, and what this is.

use std::process;

use super::Shared;
use super::connection::Connection;
use crate::glob;
use crate::number;
use crate::reply::Replies;
use crate::service::{Arguments, Command, Kindness, SYNTAX, find, is, keys, table, unknown};

/// The version of Redis whose commands and errors these are.
const REDIS: &str = "7.0.15";
/// The longest name that a connection may give itself, in bytes.
const NAME_BYTES: usize = 1024;

/// Where the replies to a connection go.
pub(super) fn replies(connection: &mut Connection) -> Replies<'_> {
    Replies::new(&mut connection.output, connection.speaks_resp3, usize::MAX)
}

pub(super) fn error(connection: &mut Connection, text: &str) {
    replies(connection).error(text.as_bytes());
}

/// What cannot be read ends the connection.
pub(super) fn protocol_error(connection: &mut Connection, text: &str) {
    error(connection, &format!("ERR Protocol error: {text}"));
    connection.is_closing = true;
}

impl Shared {
    /// Answers a command, or has the group answer it alone. `false` if there is no room for that now.
    pub(super) fn answer(
        &mut self,
        at: usize,
        connection: &mut Connection,
        command: Option<&'static Command>,
        args: Arguments<'_>,
        end: usize,
    ) -> bool {
        let refusal = match command {
            None => Some(unknown(args)),
            Some(command) if command.name == crate::service::VERSIONS => Some(unknown(args)),
            Some(command) if !command.takes(args.len()) => Some(command.wrong_arity()),
            Some(_) => None,
        };
        let name = command.map_or("", |command| command.name);
        if !connection.is_authenticated && !matches!(name, "AUTH" | "HELLO" | "QUIT" | "RESET") {
            error(connection, "NOAUTH Authentication required.");
            return true;
        }
        if let Some(refusal) = refusal {
            if let Some(transaction) = &mut connection.transaction {
                transaction.is_spoilt = true;
            }
            error(connection, &refusal);
            return true;
        }
        let Some(command) = command else { return true };
        let is_limited = connection.is_subscribed() && !connection.speaks_resp3;
        let subscribes =
            matches!(name, "SUBSCRIBE" | "PSUBSCRIBE" | "UNSUBSCRIBE" | "PUNSUBSCRIBE");
        if is_limited && !subscribes && !matches!(name, "PING" | "QUIT" | "RESET") {
            let name = name.to_ascii_lowercase();
            error(
                connection,
                &format!(
                    "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / \
                     QUIT / RESET are allowed in this context"
                ),
            );
            return true;
        }
        match name {
            "MULTI" | "EXEC" | "DISCARD" | "WATCH" | "UNWATCH" => {
                return self.transact(at, connection, name, args, end);
            }
            "QUIT" => {
                replies(connection).ok();
                connection.is_closing = true;
            }
            "RESET" => self.reset(at, connection),
            _ if connection.transaction.is_some() => {
                self.queue(connection, command, args);
            }
            _ if command.waits() => return self.attempt(at, connection, command, args, end),
            _ if subscribes => self.subscribe(at, connection, name, args),
            "PUBLISH" => {
                let receivers = self.channels.publish(args[1], args[2]);
                replies(connection).count(receivers);
            }
            "PUBSUB" => self.tell_of_channels(connection, args),
            _ => self.tell(connection, name, args),
        }
        true
    }

    fn tell(&mut self, connection: &mut Connection, name: &str, args: Arguments<'_>) {
        let refusal = match name {
            "PING" => ping(connection, args),
            "ECHO" => {
                replies(connection).bulk(args[1]);
                Ok(())
            }
            "SELECT" => keys::database(args[1]).map(|database| {
                connection.database = database;
                replies(connection).ok();
            }),
            "HELLO" => self.hello(connection, args),
            "AUTH" => self.authenticate(connection, args),
            "CLIENT" => client(connection, args),
            "COMMAND" => commands(connection, args),
            "CONFIG" => self.config(connection, args),
            "INFO" => {
                let text = self.info();
                replies(connection).bulk(text.as_bytes());
                Ok(())
            }
            "TIME" => {
                time(connection);
                Ok(())
            }
            // All replicas that are needed have what was answered before.
            "WAIT" => {
                replies(connection).integer(0);
                Ok(())
            }
            "READONLY" | "READWRITE" => {
                Err("ERR This instance has cluster support disabled".into())
            }
            name => Err(format!("ERR {name} is not answered here").into()),
        };
        if let Err(refusal) = refusal {
            error(connection, &refusal);
        }
    }

    fn reset(&mut self, at: usize, connection: &mut Connection) {
        self.channels.forget(at, connection);
        connection.channels.clear();
        connection.patterns.clear();
        connection.subscribed_bytes = 0;
        connection.transaction = None;
        connection.watches.clear();
        connection.database = 0;
        connection.speaks_resp3 = false;
        connection.name.clear();
        connection.is_authenticated = self.options.password.is_none();
        replies(connection).status("RESET");
    }

    fn hello(&mut self, connection: &mut Connection, args: Arguments<'_>) -> crate::service::Done {
        let mut speaks_resp3 = connection.speaks_resp3;
        if let Some(version) = args.get(1) {
            let version = number::integer(version);
            let version =
                version.ok_or("ERR Protocol version is not an integer or out of range")?;
            speaks_resp3 = match version {
                2 => false,
                3 => true,
                _ => return Err("NOPROTO unsupported protocol version".into()),
            };
        }
        let mut name = None;
        let mut rest = args.get(2..).unwrap_or_default();
        while let [word, more @ ..] = rest {
            if is(word, "auth") && more.len() >= 2 {
                self.check_password(connection, Some(more[0]), more[1])?;
                rest = &more[2..];
            } else if is(word, "setname") && !more.is_empty() {
                name = Some(more[0]);
                rest = &more[1..];
            } else {
                let word = String::from_utf8_lossy(word);
                return Err(format!("ERR Syntax error in HELLO option '{word}'").into());
            }
        }
        if !connection.is_authenticated {
            return Err("NOAUTH HELLO must be called with the client already authenticated, \
                otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate \
                the client and select the RESP protocol version at the same time"
                .into());
        }
        if let Some(name) = name {
            set_name(connection, name)?;
        }
        connection.speaks_resp3 = speaks_resp3;
        let id = connection.id;
        let mut out = replies(connection);
        out.map(7);
        for (key, value) in [("server", "redis"), ("version", REDIS)] {
            out.bulk(key.as_bytes());
            out.bulk(value.as_bytes());
        }
        out.bulk(b"proto");
        out.integer(if speaks_resp3 { 3 } else { 2 });
        out.bulk(b"id");
        out.integer(id as i64);
        for (key, value) in [("mode", "standalone"), ("role", "master")] {
            out.bulk(key.as_bytes());
            out.bulk(value.as_bytes());
        }
        out.bulk(b"modules");
        out.array(0);
        Ok(())
    }

    fn authenticate(
        &mut self,
        connection: &mut Connection,
        args: Arguments<'_>,
    ) -> crate::service::Done {
        match args {
            [_, password] => self.check_password(connection, None, password)?,
            [_, user, password] => self.check_password(connection, Some(user), password)?,
            _ => return Err(SYNTAX),
        }
        replies(connection).ok();
        Ok(())
    }

    fn check_password(
        &self,
        connection: &mut Connection,
        user: Option<&[u8]>,
        given: &[u8],
    ) -> crate::service::Done {
        let Some(password) = &self.options.password else {
            return match user {
                Some(b"default") => Ok(()),
                Some(_) => Err(WRONG_PASSWORD.into()),
                None => Err("ERR AUTH <password> called without any password configured for the \
                    default user. Are you sure your configuration is correct?"
                    .into()),
            };
        };
        // Takes as long whatever is wrong with it.
        let mut differs = u8::from(given.len() != password.len());
        for (at, byte) in password.bytes().enumerate() {
            differs |= byte ^ given.get(at).copied().unwrap_or(!byte);
        }
        if differs != 0 || user.is_some_and(|user| user != b"default") {
            return Err(WRONG_PASSWORD.into());
        }
        connection.is_authenticated = true;
        Ok(())
    }

    fn config(&mut self, connection: &mut Connection, args: Arguments<'_>) -> crate::service::Done {
        if is(args[1], "resetstat") {
            replies(connection).ok();
            return Ok(());
        }
        if !is(args[1], "get") {
            return Err("ERR a gateway has no settings that can be changed while it runs: see \
                `hybster gateway --help`"
                .into());
        }
        let longest = self.bounds.request_bytes.to_string();
        let most = self.options.max_connections.to_string();
        let settings = [
            ("appendonly", "no"),
            ("databases", "16"),
            ("maxclients", &*most),
            ("maxmemory", "0"),
            ("maxmemory-policy", "noeviction"),
            ("proto-max-bulk-len", &*longest),
            ("save", ""),
            ("timeout", "0"),
        ];
        let wanted = |name: &str| {
            let mut patterns = args[2..].iter();
            patterns.any(|it| glob::matches(&it.to_ascii_lowercase(), name.as_bytes()))
        };
        let found: Vec<_> = settings.iter().filter(|(name, _)| wanted(name)).collect();
        let mut out = replies(connection);
        out.map(found.len());
        for (name, value) in found {
            out.bulk(name.as_bytes());
            out.bulk(value.as_bytes());
        }
        Ok(())
    }

    fn info(&self) -> String {
        format!(
            "# Server\r\nredis_version:{REDIS}\r\nredis_mode:standalone\r\n\
             hybster_version:{}\r\nprocess_id:{}\r\nuptime_in_seconds:{}\r\n\
             # Clients\r\nconnected_clients:{}\r\nmaxclients:{}\r\nblocked_clients:{}\r\n\
             # Memory\r\nused_memory_clients:{}\r\n\
             # Persistence\r\nloading:0\r\n\
             # Stats\r\ntotal_connections_received:{}\r\ntotal_commands_processed:{}\r\n\
             # Replication\r\nrole:master\r\nconnected_slaves:0\r\n\
             # Cluster\r\ncluster_enabled:0\r\n",
            env!("CARGO_PKG_VERSION"),
            process::id(),
            self.started.elapsed().as_secs(),
            self.open,
            self.options.max_connections,
            self.blocked.len(),
            self.held,
            self.accepted,
            self.commands,
        )
    }
}

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

fn ping(connection: &mut Connection, args: Arguments<'_>) -> crate::service::Done {
    let is_limited = connection.is_subscribed() && !connection.speaks_resp3;
    let mut out = replies(connection);
    match args {
        _ if args.len() > 2 => {
            return Err("ERR wrong number of arguments for 'ping' command".into());
        }
        _ if is_limited => {
            out.array(2);
            out.bulk(b"pong");
            out.bulk(args.get(1).copied().unwrap_or_default());
        }
        [_, text] => out.bulk(text),
        _ => out.status("PONG"),
    }
    Ok(())
}

fn set_name(connection: &mut Connection, name: &[u8]) -> crate::service::Done {
    if !name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Err(
            "ERR Client names cannot contain spaces, newlines or special characters.".into()
        );
    }
    if name.len() > NAME_BYTES {
        return Err(format!("ERR a name has {NAME_BYTES} bytes at most").into());
    }
    connection.name = name.to_vec();
    Ok(())
}

fn client(connection: &mut Connection, args: Arguments<'_>) -> crate::service::Done {
    let describe = |connection: &Connection| {
        format!(
            "id={} name={} db={} resp={}",
            connection.id,
            String::from_utf8_lossy(&connection.name),
            connection.database,
            if connection.speaks_resp3 { 3 } else { 2 },
        )
    };
    match args {
        [_, word, name] if is(word, "setname") => {
            set_name(connection, name)?;
            replies(connection).ok();
        }
        [_, word] if is(word, "getname") => {
            let name = connection.name.clone();
            replies(connection).bulk_or_null(Some(&*name).filter(|name| !name.is_empty()));
        }
        [_, word] if is(word, "id") => {
            let id = connection.id;
            replies(connection).integer(id as i64);
        }
        [_, word] if is(word, "info") || is(word, "list") => {
            let text = describe(connection) + "\n";
            replies(connection).bulk(text.as_bytes());
        }
        [_, word, _, _] if is(word, "setinfo") => replies(connection).ok(),
        [_, word, _] if is(word, "no-evict") || is(word, "no-touch") => replies(connection).ok(),
        [_, word, ..] => {
            let word = String::from_utf8_lossy(word).into_owned();
            return Err(format!("ERR unknown subcommand '{word}'. Try CLIENT HELP.").into());
        }
        _ => return Err(SYNTAX),
    }
    Ok(())
}

/// What COMMAND says of a command.
fn describe(command: &Command, out: &mut Replies<'_>) {
    out.array(10);
    out.bulk(command.name.to_ascii_lowercase().as_bytes());
    out.integer(command.arity.into());
    let flag = match command.run {
        Kindness::Read(_) => "readonly",
        Kindness::Write(_) => "write",
        Kindness::Select | Kindness::Gateway => "fast",
    };
    out.array(1);
    out.status(flag);
    let (first, last, step) = command.keys;
    [first, last, step].into_iter().for_each(|number| out.integer(number.into()));
    (0..4).for_each(|_| out.array(0));
}

fn commands(connection: &mut Connection, args: Arguments<'_>) -> crate::service::Done {
    let all = || table().iter().filter(|command| command.name != crate::service::VERSIONS);
    let mut out = replies(connection);
    match args {
        [_] => {
            out.array(all().count());
            all().for_each(|command| describe(command, &mut out));
        }
        [_, word] if is(word, "count") => out.count(all().count()),
        [_, word] if is(word, "list") => {
            out.array(all().count());
            all().for_each(|command| out.bulk(command.name.to_ascii_lowercase().as_bytes()));
        }
        // There is none: `redis-cli` does without hints then.
        [_, word, ..] if is(word, "docs") => out.map(0),
        [_, word, names @ ..] if is(word, "info") => {
            out.array(names.len());
            for name in names {
                match find(name) {
                    Some(command) => describe(command, &mut out),
                    None => out.null_array(),
                }
            }
        }
        [_, word, ..] => {
            let word = String::from_utf8_lossy(word).into_owned();
            return Err(format!("ERR unknown subcommand '{word}'. Try COMMAND HELP.").into());
        }
        _ => return Err(SYNTAX),
    }
    Ok(())
}

/// The gateway's own clock, not the time that the group agrees on.
fn time(connection: &mut Connection) {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut out = replies(connection);
    out.array(2);
    out.bulk(now.as_secs().to_string().as_bytes());
    out.bulk(now.subsec_micros().to_string().as_bytes());
}
