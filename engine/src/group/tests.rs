//! A directory survives the round trip; every fault is named with file, key and cure.

use std::fs;
use std::path::PathBuf;

use hybster_proto::membership::Administrator;
use hybster_proto::protocol::Protocol;
use hybster_tss::{ClientSigningKey, Life, RequestKey};

use super::*;

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("hybster-group-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn sample(name: &str) -> (Scratch, Group) {
    let scratch = Scratch::new(name);
    let options = CreateOptions { clients: 2, ..CreateOptions::default() };
    let group = create(&scratch.0, &options).unwrap();
    (scratch, group)
}

#[test]
fn a_directory_survives_the_round_trip() {
    let (scratch, made) = sample("round-trip");
    for path in [scratch.0.clone(), scratch.0.join(GROUP_FILE)] {
        let group = Group::load(path).unwrap();
        assert_eq!(group.config(), made.config());
        assert_eq!(group.replicas(), made.replicas());
        assert_eq!(group.clients(), made.clients());
        assert_eq!(group.key_ring().unwrap().len(), 5);
    }
    let mut group_keys = Vec::new();
    for id in made.config().all_replicas() {
        let keys = ReplicaKeys::load(&made, &scratch.0, id).unwrap();
        group_keys.push(*keys.group_key.unwrap().expose_bytes());
    }
    assert!(group_keys.iter().all(|key| *key == group_keys[0]));
    let group_key = ReplicaKeys::load(&made, &scratch.0, ReplicaId(0)).unwrap().group_key.unwrap();
    let client = ClientKeys::load(&made, &scratch.0, ClientId(1)).unwrap();
    let derived = group_key.client_key(made.config().mac, 1);
    assert_eq!(client.requests.expose_bytes(), derived.expose_bytes());
}

#[test]
fn a_file_without_a_protocol_is_one_of_hybster() {
    let (scratch, made) = sample("no-protocol");
    let path = scratch.0.join(GROUP_FILE);
    let text = fs::read_to_string(&path).unwrap();
    let line = "protocol = \"hybster\"\n";
    assert!(text.contains(line));
    let group = Group::parse(&path, &text.replace(line, "")).unwrap();
    assert_eq!(group.config(), made.config());
    assert_eq!(group.config().digest(), made.config().digest());
}

#[test]
fn clients_that_sign_have_keys_of_their_own_and_the_group_knows_the_public_halves() {
    let scratch = Scratch::new("signed");
    let request_authenticator = RequestAuthenticator::Ed25519;
    let config = GroupConfig { request_authenticator, ..GroupConfig::default() };
    let options = CreateOptions { clients: 2, config, ..CreateOptions::default() };
    let made = create(&scratch.0, &options).unwrap();
    let group = Group::load(&scratch.0).unwrap();
    assert_eq!((group.config(), group.clients()), (made.config(), made.clients()));
    let signers = group.request_keys().unwrap();
    assert_eq!(signers.digest(), group.config().request_keys);
    for id in [0, 1] {
        let keys = ClientKeys::load(&group, &scratch.0, ClientId(id)).unwrap();
        let RequestKey::Ed25519(key) = &keys.requests else { panic!("not for signatures") };
        assert!(signers.verify(id, b"request", &key.sign(b"request")));
        assert!(!signers.verify(1 - id, b"request", &key.sign(b"request")));
    }

    let path = scratch.0.join(GROUP_FILE);
    let text = fs::read_to_string(&path).unwrap();
    let public = group.clients()[0].request_key.unwrap().to_string();
    let other = group.clients()[1].request_key.unwrap().to_string();
    let line = format!("request_key = \"{public}\"\n");
    for (from, to, told) in [
        (&line[..], "", "client[0].request_key"),
        (&public[..], "12", "64 hexadecimal digits"),
        (&public, &format!("02{:062}", 0), "not an Ed25519 public key"),
        ("\"ed25519\"", "\"rot13\"", "write mac or ed25519"),
        ("\"ed25519\"", "\"mac\"", "remove it, or set request_authenticator"),
    ] {
        assert!(text.contains(from), "{from}");
        let error = Group::parse(&path, &text.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    // The wrong key of a client makes another group, and does not fit the client's file.
    let swapped = Group::parse(&path, &text.replacen(&public, &other, 1)).unwrap();
    assert_ne!(swapped.config().digest(), group.config().digest());
    let error = ClientKeys::load(&swapped, &scratch.0, ClientId(0)).unwrap_err().to_string();
    assert!(error.contains("request_key is not the private half"), "{error}");
}

#[cfg(unix)]
#[test]
fn key_files_are_private_and_public_ones_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let (scratch, group) = sample("private");
    let path = ReplicaKeys::path(&scratch.0, ReplicaId(1));
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = ReplicaKeys::load(&group, &scratch.0, ReplicaId(1)).unwrap_err().to_string();
    assert!(error.contains("replica-1.key") && error.contains("chmod 600"), "{error}");
}

#[test]
fn nothing_is_overwritten_and_nothing_is_left_half_made() {
    let (scratch, _) = sample("overwrite");
    let again = create(&scratch.0, &CreateOptions::default()).unwrap_err();
    assert!(matches!(&again, GroupError::Exists { file } if file.ends_with(GROUP_FILE)));
    fs::remove_file(scratch.0.join(GROUP_FILE)).unwrap();
    fs::remove_file(scratch.0.join("replica-0.key")).unwrap();
    let again = create(&scratch.0, &CreateOptions::default()).unwrap_err();
    assert!(matches!(&again, GroupError::Exists { file } if file.ends_with("replica-1.key")));
    assert!(!scratch.0.join("replica-0.key").exists());
}

/// Only a group that is made with one has an administrator, whose keys are in a file of their own.
#[test]
fn an_administrator_has_what_it_takes_to_make_a_replica_again() {
    let scratch = Scratch::new("administrator");
    let key = ClientSigningKey::from_bytes([7; 32]).public();
    let mut options = CreateOptions { clients: 2, ..CreateOptions::default() };
    // That of another group, as constants that are used again name it.
    options.config.administrator = Some(Administrator { client: ClientId(0), key });
    assert_eq!(generate(&options).unwrap().group.config().administrator, None);
    options.administrator = true;
    let group = create(&scratch.0, &options).unwrap();
    let administrator = group.config().administrator.unwrap();
    assert_eq!((administrator.client, group.clients().len()), (ClientId(2), 3));
    assert!(!ClientKeys::path(&scratch.0, ClientId(2)).exists());
    let loaded = Group::load(&scratch.0).unwrap();
    assert_eq!(loaded.config(), group.config());
    let keys = AdministratorKeys::load(&loaded, &scratch.0).unwrap();
    assert_eq!((keys.signing.public(), keys.client.id), (administrator.key, ClientId(2)));
    // A new life has the links of the old one, and a key of its own for a later epoch.
    let made = keys.replacement(&group, ReplicaId(1), Life(0xabcd), 1);
    let text = made.to_text().unwrap();
    let made = ReplicaKeys::from_text(&loaded, &text, ReplicaId(1)).unwrap();
    assert_eq!((made.life(), made.epoch()), (Life(0xabcd), 1));
    assert_eq!(made.link.public(), group.replicas()[1].public_key);
    for (was, is) in
        [("life = \"000000000000abcd\"", "life = \"000000000000abce\""), ("epoch = 1", "epoch = 2")]
    {
        assert!(text.contains(was), "{was}");
        let forged = text.replace(was, is);
        ReplicaKeys::from_text(&loaded, &forged, ReplicaId(1)).unwrap_err();
    }
    // Nothing else than durability sync is offered, in code and in files.
    let options = CreateOptions { durability: Durability::Async, ..options };
    let error = generate(&options).unwrap_err().to_string();
    assert!(error.contains("administrator") && error.contains("sync"), "{error}");
    let weaker = group.to_text().replace("durability = \"sync\"", "durability = \"none\"");
    let error = Group::from_text(&weaker).unwrap_err().to_string();
    assert!(error.contains("administrator") && error.contains("sync"), "{error}");
    // A group without one.
    let without = generate(&CreateOptions::default()).unwrap().group;
    let error = AdministratorKeys::load(&without, &scratch.0).unwrap_err();
    assert!(matches!(error, GroupError::NoAdministrator { .. }), "{error}");
}

/// The key file says in which epoch the replica was last, and does not go back.
#[test]
fn a_key_goes_on_to_later_epochs_only() {
    let scratch = Scratch::new("advance");
    let options = CreateOptions { administrator: true, ..CreateOptions::default() };
    let group = create(&scratch.0, &options).unwrap();
    let load = || ReplicaKeys::load(&group, &scratch.0, ReplicaId(1)).unwrap();
    let first = load();
    first.claim_start().unwrap();
    let second = load().advance(1).unwrap();
    assert_eq!((second.epoch(), load().epoch()), (1, 1));
    assert_eq!(second.has_started().unwrap(), Some(true));
    assert!(second.data_directory().unwrap().ends_with("replica-1.epoch-1.data"));
    // Keys from before, in memory.
    assert!(matches!(first.advance(1), Err(GroupError::StartedBefore { .. })));
    assert!(matches!(first.advance(2), Err(GroupError::StartedBefore { .. })));
    assert!(first.claim_start().is_err() && load().claim_start().is_err());
    // A crash between the mark and the key file.
    fs::write(scratch.0.join("replica-1.epoch-2.started"), b"").unwrap();
    assert_eq!(load().advance(2).unwrap().epoch(), 2);
    let in_memory = generate(&options).unwrap().replicas.remove(0);
    assert!(matches!(in_memory.advance(1), Err(GroupError::KeysInNoFile { id: 0 })));
}

/// A group of four that tolerates one fault without trusted subsystems.
fn without_trusted_subsystems() -> CreateOptions {
    let (protocol, request_authenticator) = (Protocol::Pbft, RequestAuthenticator::Ed25519);
    let config =
        GroupConfig { protocol, replicas: 4, request_authenticator, ..GroupConfig::default() };
    CreateOptions { config, clients: 2, durability: Durability::None, ..CreateOptions::default() }
}

#[test]
fn without_trusted_subsystems_no_secret_is_in_two_files() {
    let scratch = Scratch::new("no-group-key");
    let made = create(&scratch.0, &without_trusted_subsystems()).unwrap();
    let group = Group::load(&scratch.0).unwrap();
    assert_eq!((group.config(), group.replicas().len()), (made.config(), 4));
    assert_eq!(group.config().digest(), made.config().digest());
    let mut secrets = std::collections::BTreeSet::new();
    let mut files = 0;
    for entry in fs::read_dir(&scratch.0).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "key") {
            files += 1;
            let text = fs::read_to_string(&path).unwrap();
            assert!(!text.contains("group_key"), "{text}");
            let values = text.lines().filter_map(|line| line.split_once(" = \""));
            // The sealed values have a head in the clear.
            let secret = values.filter(|(_, value)| value.len() > 60);
            secrets.extend(secret.map(|(_, value)| value[value.len() - 60..].to_owned()));
        }
    }
    // Two of each client, three of each replica.
    assert_eq!((files, secrets.len()), (6, 2 * 2 + 4 * 3));
    for id in group.config().all_replicas() {
        assert!(ReplicaKeys::load(&group, &scratch.0, id).unwrap().group_key.is_none());
    }
    let keys = ReplicaKeys::load(&group, &scratch.0, ReplicaId(2)).unwrap();
    let text = keys.to_text().unwrap();
    assert!(ReplicaKeys::from_text(&group, &text, ReplicaId(2)).unwrap().group_key.is_none());
    // A start is the only one all the same: the replica forgets what it has said.
    keys.claim_start().unwrap();
    let used = ReplicaKeys::load(&group, &scratch.0, ReplicaId(2)).unwrap();
    assert!(matches!(used.claim_start(), Err(GroupError::StartedBefore { .. })));
}

#[test]
fn key_files_of_another_protocol_are_told() {
    let (scratch, _) = sample("other-protocol");
    let path = scratch.0.join("replica-0.key");
    let of_hybster = fs::read_to_string(&path).unwrap();
    let Generated { group, replicas, .. } = generate(&without_trusted_subsystems()).unwrap();
    let text = replicas[0].to_text().unwrap();
    let refused = |text: &str| {
        let error = ReplicaKeys::from_text(&group, text, ReplicaId(0)).unwrap_err();
        error.to_string()
    };
    let own = text.lines().find(|line| line.starts_with("sealed_right")).unwrap();
    let other = of_hybster.lines().find(|line| line.starts_with("sealed_group_key")).unwrap();
    let error = refused(&text.replace(own, other));
    assert!(error.contains("has sealed_group_key") && error.contains("sealed_right"), "{error}");
    let error = refused(&text.replace(own, &own.replace("sealed_right", "sealed_wrong")));
    assert!(error.contains("sealed_wrong"), "{error}");
    let error = refused(&text[..text.len() - own.len() - 1]);
    assert!(error.contains("is cut off"), "{error}");
}

#[test]
fn what_a_protocol_without_log_or_group_key_cannot_have_is_told() {
    let made = |change: fn(&mut CreateOptions)| {
        let mut options = without_trusted_subsystems();
        change(&mut options);
        generate(&options).map(|made| made.group.to_text()).map_err(|error| error.to_string())
    };
    let error = made(|it| it.durability = Durability::Sync).unwrap_err();
    assert!(error.contains("durability: write none") && error.contains("no log"), "{error}");
    let error = made(|it| it.config.request_authenticator = RequestAuthenticator::Mac).unwrap_err();
    assert!(error.contains("request_authenticator = \"mac\": write ed25519"), "{error}");
    let error = made(|it| it.administrator = true).unwrap_err();
    assert!(error.contains("administrator = 2: leave it out") && error.contains("pbft"), "{error}");
    let error = made(|it| it.config.replicas = 3).unwrap_err();
    assert!(error.contains("replicas = 3: 1 faults need at least 4 with pbft"), "{error}");
    let text = made(|_| {}).unwrap();
    for (from, to, told) in [
        ("durability = \"none\"", "durability = \"async\"", "durability = \"async\": write none"),
        (
            "request_authenticator = \"ed25519\"",
            "request_authenticator = \"mac\"",
            "request_authenticator = \"mac\": write ed25519",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        let error = Group::from_text(&text.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains("group.toml") && error.contains(told), "{error}");
    }
    // Files that say nothing of it keep nothing.
    let silent = Group::from_text(&text.replacen("durability = \"none\"\n", "", 1)).unwrap();
    assert_eq!(silent.durability(), Durability::None);
}

#[test]
fn every_fault_names_file_key_and_cure() {
    let (scratch, group) = sample("faults");
    let path = scratch.0.join(GROUP_FILE);
    let text = fs::read_to_string(&path).unwrap();
    for (from, to, key) in [
        ("window = 1024", "window = 1000", "window = 1000"),
        ("pillars = 2", "pillars = 0", "pillars = 0"),
        ("faults = 1", "faults = 2", "replicas = 3"),
        ("mac = \"aegis-128l\"", "mac = \"md5\"", "mac = md5"),
        ("link_cipher = \"aegis-128x2\"", "link_cipher = \"rot13\"", "link_cipher = rot13"),
        ("layout = \"auto\"", "layout = \"round\"", "layout = round"),
        ("durability = \"sync\"", "durability = \"often\"", "write sync, async or none"),
        ("epoch = 0", "epoch = 0\ncolour = 3", "colour"),
        (
            "protocol = \"hybster\"",
            "protocol = \"paxos\"",
            "protocol = \"paxos\": write hybster or pbft",
        ),
        (
            "protocol = \"hybster\"",
            "protocol = \"pbft\"",
            "replicas = 3: 1 faults need at least 4 with pbft",
        ),
        ("format = 1", "format = 9", "format = 9"),
        ("127.0.0.1:7101", "127.0.0.1:7100", "replica[1].address"),
        ("127.0.0.1:7101", "nowhere", "replica[1].address"),
        ("[[client]]\nid = 1", "[[client]]\nid = 0", "client.public_key"),
        ("[[client]]\nid = 1", "[[client]]\nid = 5000", "client[1].id"),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = Group::load(&scratch.0).unwrap_err().to_string();
        assert!(error.contains("group.toml") && error.contains(key), "{from}: {error}");
    }
    let error = Group::load(scratch.0.join("missing.toml")).unwrap_err().to_string();
    assert!(error.contains("missing.toml") && error.contains("hybster init"), "{error}");
    let error = ReplicaKeys::load(&group, &scratch.0, ReplicaId(9)).unwrap_err().to_string();
    assert!(error.contains("no replica 9") && error.contains("lists 3"), "{error}");
}

#[test]
fn keys_of_others_are_refused_and_secrets_are_not_shown() {
    let (scratch, group) = sample("swapped");
    let (zero, one) = (scratch.0.join("replica-0.key"), scratch.0.join("replica-1.key"));
    let secret = fs::read_to_string(&one).unwrap();
    fs::copy(&one, &zero).unwrap();
    let error = ReplicaKeys::load(&group, &scratch.0, ReplicaId(0)).unwrap_err().to_string();
    assert!(error.contains("replica-0.key") && error.contains("keys of replica 1"), "{error}");
    for (from, to) in
        [("replica = 1", "replica = one"), ("link_key_seed = \"", "link_key_seed = \"x")]
    {
        fs::write(&one, secret.replacen(from, to, 1)).unwrap();
        let error = ReplicaKeys::load(&group, &scratch.0, ReplicaId(1)).unwrap_err().to_string();
        assert!(error.contains("replica-1.key"), "{error}");
        assert!(!secret.lines().any(|l| l.len() > 60 && error.contains(&l[30..60])), "{error}");
    }
    let (other, _) = sample("other-group");
    fs::copy(other.0.join("client-0.key"), scratch.0.join("client-0.key")).unwrap();
    let error = ClientKeys::load(&group, &scratch.0, ClientId(0)).unwrap_err().to_string();
    assert!(error.contains("another group"), "{error}");
}

#[test]
fn contradictory_options_are_refused() {
    let scratch = Scratch::new("options");
    let base = CreateOptions::default;
    let wrong = [
        CreateOptions { clients: 5000, ..base() },
        CreateOptions { addresses: Addresses::Loopback(65535), ..base() },
        CreateOptions { addresses: Addresses::List(vec![]), ..base() },
        CreateOptions { config: GroupConfig { faults: 3, ..GroupConfig::default() }, ..base() },
    ];
    for options in wrong {
        let error = create(&scratch.0, &options).unwrap_err();
        assert!(matches!(error, GroupError::Options { .. }), "{error}");
    }
    assert!(!scratch.0.exists());
}

#[test]
fn empty_and_truncated_files_are_called_so() {
    let (scratch, group) = sample("damaged");
    let load = |name: &str| match name {
        "replica-0.key" => ReplicaKeys::load(&group, &scratch.0, ReplicaId(0)).map(|_| ()),
        _ => ClientKeys::load(&group, &scratch.0, ClientId(0)).map(|_| ()),
    };
    for name in ["replica-0.key", "client-0.key"] {
        let path = scratch.0.join(name);
        let good = fs::read(&path).unwrap();
        for (content, how) in [(&b""[..], "is empty"), (&[0; 512], "is empty"), (b"\n", "is empty")]
        {
            fs::write(&path, content).unwrap();
            let error = load(name).unwrap_err().to_string();
            let expected = format!("has {}", good.len());
            for part in
                [name, how, &format!("{} bytes", content.len()), &expected, "copy the file again"]
            {
                assert!(error.contains(part), "{part} is missing in: {error}");
            }
        }
        // Wherever it was cut; the last byte ends the last line.
        for length in 1..good.len() - 1 {
            fs::write(&path, &good[..length]).unwrap();
            let error = load(name).unwrap_err();
            let GroupError::Damaged { found, expected, .. } = &error else {
                panic!("{length}: {error}");
            };
            assert_eq!((*found, *expected), (length, good.len()));
        }
        fs::write(&path, &good).unwrap();
        load(name).unwrap();
    }
    fs::write(scratch.0.join(GROUP_FILE), "").unwrap();
    let error = Group::load(&scratch.0).unwrap_err().to_string();
    assert!(error.contains("group.toml: is empty"), "{error}");
}

#[test]
fn a_group_in_memory_survives_the_round_trip_through_texts() {
    for request_authenticator in [RequestAuthenticator::Mac, RequestAuthenticator::Ed25519] {
        let config = GroupConfig { request_authenticator, ..GroupConfig::default() };
        let options = CreateOptions { config, clients: 2, ..CreateOptions::default() };
        let Generated { group, replicas, clients, .. } = generate(&options).unwrap();
        let read = Group::from_text(&group.to_text()).unwrap();
        assert_eq!(read.config(), group.config());
        assert_eq!((read.replicas(), read.clients()), (group.replicas(), group.clients()));
        for keys in &replicas {
            let text = keys.to_text().unwrap();
            let read = ReplicaKeys::from_text(&group, &text, keys.id).unwrap();
            let key_of = |keys: &ReplicaKeys| *keys.group_key.as_ref().unwrap().expose_bytes();
            assert_eq!(key_of(&read), key_of(keys));
            let other = ReplicaId((keys.id.0 + 1) % 3);
            let error = ReplicaKeys::from_text(&group, &text, other).unwrap_err().to_string();
            assert!(error.contains("text of") && error.contains("holds the keys of"), "{error}");
        }
        let text = clients[1].to_text(&group);
        let read = ClientKeys::from_text(&group, &text, ClientId(1)).unwrap();
        assert_eq!(read.requests.expose_bytes(), clients[1].requests.expose_bytes());
        assert!(ClientKeys::from_text(&group, &text[..text.len() / 2], ClientId(1)).is_err());
    }
}

#[test]
fn keys_in_files_of_any_name_and_in_variables_are_read() {
    let (scratch, group) = sample("any-name");
    let path = scratch.0.join("tls.key");
    fs::rename(scratch.0.join("replica-1.key"), &path).unwrap();
    let keys = ReplicaKeys::load_file(&group, &path, ReplicaId(1)).unwrap();
    keys.claim_start().unwrap();
    assert!(scratch.0.join("replica-1.epoch-0.started").exists());
    assert_eq!(keys.has_started().unwrap(), Some(true));
    let client = ClientKeys::load_file(&group, scratch.0.join("client-1.key"), ClientId(1));
    assert_eq!(client.unwrap().id, ClientId(1));
    // One that every environment has, and that is no group.
    let error = Group::from_env("PATH").unwrap_err().to_string();
    assert!(error.starts_with("$PATH: "), "{error}");
    let error = ClientKeys::from_env(&group, "HYBSTER_NOT_SET", ClientId(0)).unwrap_err();
    assert_eq!(error.to_string(), "the environment variable HYBSTER_NOT_SET is not set");
    let error = ReplicaKeys::from_env(&group, "HYBSTER_NOT_SET", ReplicaId(0)).unwrap_err();
    assert!(matches!(error, GroupError::Environment { .. }), "{error}");
}

#[test]
fn keys_in_memory_start_once_in_all_their_copies() {
    let Generated { group, mut replicas, .. } = generate(&CreateOptions::default()).unwrap();
    let keys = replicas.remove(0);
    let copy = keys.clone();
    assert_eq!((keys.has_started().unwrap(), keys.data_directory()), (Some(false), None));
    keys.claim_start().unwrap();
    assert!(matches!(copy.claim_start(), Err(GroupError::StartedBefore { .. })));
    assert!(matches!(copy.refuse_second_start(), Err(GroupError::StartedBefore { .. })));
    assert_eq!(copy.has_started().unwrap(), Some(true));
    // Of keys from a text nothing tells, until they have started here.
    let text = replicas[0].to_text().unwrap();
    let keys = ReplicaKeys::from_text(&group, &text, ReplicaId(1)).unwrap();
    assert_eq!(keys.has_started().unwrap(), None);
    keys.claim_start().unwrap();
    assert_eq!(keys.has_started().unwrap(), Some(true));
}

#[test]
fn a_member_may_reach_the_others_elsewhere() {
    let (_scratch, group) = sample("elsewhere");
    let at = |port: u16| PeerAddress::from(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
    let seen = group.reached_at(vec![at(1), at(2), at(3)]).unwrap();
    assert_eq!(seen.replicas()[1].address, at(2));
    assert_eq!(seen.config().digest(), group.config().digest());
    assert!(group.reached_at(vec![at(1), at(2)]).is_err());
    assert!(group.reached_at(vec![at(1), at(2), at(1)]).is_err());
}
