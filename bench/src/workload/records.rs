//! Operations on the records of the key-value store: YCSB's workloads, a coordination service's, and
//! plain reads and writes.

use hybster::services::kv::{KvOperation, KvReply, MAX_VALUE_BYTES};

use super::{Choice, Random};
use crate::load::{Access, Answer, Workload};
use crate::options::Distribution;

/// The largest value that the store takes.
pub const LARGEST_VALUE: u32 = MAX_VALUE_BYTES as u32;

/// The records, and what is done to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordsMix {
    /// Percent of operations that read a record.
    pub reads: u8,
    /// Percent that write a record which is there.
    pub updates: u8,
    /// Percent that write a new record.
    pub inserts: u8,
    /// Percent that read records in the order of their keys.
    pub scans: u8,
    /// Percent that read a record and then write it: one operation in two steps.
    pub read_modify_writes: u8,
    /// Which records are popular.
    pub distribution: Distribution,
    /// Records at the start.
    pub keys: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Most records of a scan; each asks for 1 to so many.
    pub scan_length: u32,
    /// What keys begin with.
    pub prefix: &'static [u8],
}

/// What a session's outstanding operation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Doing {
    #[default]
    Nothing,
    Read {
        is_known: bool,
    },
    Update,
    Insert(u64),
    Scan {
        limit: u32,
    },
    /// The first step of a read-modify-write; then comes an update of the same record.
    ReadToWrite(u64),
}

/// The workload of one load thread over the records.
#[derive(Clone, Debug)]
pub struct Records {
    mix: RecordsMix,
    /// Which thread this is, of how many: they insert different records.
    index: u64,
    threads: u64,
    random: Random,
    choice: Choice,
    value: Vec<u8>,
    doing: Vec<Doing>,
    /// Records that this thread has begun to insert, and one bit for each that is acknowledged.
    inserted: u64,
    acknowledged: Vec<u64>,
}

impl Records {
    /// The workload of thread `index` of `threads`.
    #[must_use]
    pub fn new(mix: RecordsMix, seed: u64, index: u32, threads: u32) -> Self {
        Self {
            mix,
            index: index.into(),
            threads: threads.into(),
            random: Random::of(seed, index.into()),
            choice: Choice::new(mix.distribution, mix.keys.into()),
            value: vec![b'v'; mix.value_size as usize],
            doing: Vec::new(),
            inserted: 0,
            acknowledged: Vec::new(),
        }
    }

    /// A record by its popularity, of those at the start and this thread's own.
    fn choose(&mut self) -> u64 {
        let keys = u64::from(self.mix.keys);
        let all = keys + self.inserted;
        let drawn = self.choice.draw(all, &mut self.random);
        let at = match self.mix.distribution {
            Distribution::Latest => all - 1 - drawn,
            Distribution::Uniform | Distribution::Zipfian => drawn,
        };
        if at < keys { at } else { self.own(at - keys) }
    }

    /// The number of the record that this thread inserts as its n-th.
    fn own(&self, n: u64) -> u64 {
        u64::from(self.mix.keys) + n * self.threads + self.index
    }

    /// Whether a record must be there: it was at the start, or its insertion is acknowledged.
    fn is_known(&self, record: u64) -> bool {
        let Some(beyond) = record.checked_sub(self.mix.keys.into()) else { return true };
        let n = (beyond - self.index) / self.threads;
        self.acknowledged.get((n / 64) as usize).is_some_and(|bits| bits >> (n % 64) & 1 == 1)
    }

    fn note_inserted(&mut self, n: u64) {
        let word = (n / 64) as usize;
        if word >= self.acknowledged.len() {
            self.acknowledged.resize((word + 1).next_power_of_two(), 0);
        }
        self.acknowledged[word] |= 1 << (n % 64);
    }
}

impl Workload for Records {
    fn next(&mut self, session: u32, operation: &mut Vec<u8>) -> Access {
        let session = session as usize;
        if session >= self.doing.len() {
            self.doing.resize((session + 1).next_power_of_two(), Doing::Nothing);
        }
        let mix = self.mix;
        // Of an operation in two steps the second draws nothing, so that when the first ends does not
        // change what the others do.
        if let Doing::ReadToWrite(record) = self.doing[session] {
            self.doing[session] = Doing::Update;
            return write(operation, mix.prefix, record, &self.value);
        }
        let mut drawn = self.random.below(100) as u8;
        let mut is = |percent: u8| {
            let chosen = drawn < percent;
            drawn = drawn.wrapping_sub(percent);
            chosen
        };
        if is(mix.reads) {
            let record = self.choose();
            self.doing[session] = Doing::Read { is_known: self.is_known(record) };
            read(operation, mix.prefix, record)
        } else if is(mix.inserts) {
            let n = self.inserted;
            self.inserted += 1;
            self.doing[session] = Doing::Insert(n);
            write(operation, mix.prefix, self.own(n), &self.value)
        } else if is(mix.scans) {
            let record = self.choose();
            let limit = 1 + self.random.below(mix.scan_length);
            self.doing[session] = Doing::Scan { limit };
            let (bytes, length) = key(mix.prefix, record);
            let scan = KvOperation::Scan { start: &bytes[..length], end: None, limit };
            put(operation, &scan);
            Access::Query
        } else if is(mix.read_modify_writes) {
            // Only a record that is surely there can be written again.
            let record = self.random_known();
            self.doing[session] = Doing::ReadToWrite(record);
            read(operation, mix.prefix, record)
        } else {
            let record = self.random_known();
            self.doing[session] = Doing::Update;
            write(operation, mix.prefix, record, &self.value)
        }
    }

    fn acknowledged(&mut self, session: u32, result: &[u8]) -> Answer {
        let doing = self.doing[session as usize];
        let size = self.value.len();
        let is_right = match (doing, KvReply::decode(result)) {
            (Doing::Read { .. } | Doing::ReadToWrite(_), Ok(KvReply::Value(value))) => {
                value.len() == size
            }
            // Its insertion was on its way when it was asked for.
            (Doing::Read { is_known: false }, Ok(KvReply::Absent)) => true,
            (Doing::Update, Ok(KvReply::Stored { replaced })) => replaced,
            (Doing::Insert(n), Ok(KvReply::Stored { replaced })) => {
                self.note_inserted(n);
                !replaced
            }
            (Doing::Scan { limit }, Ok(KvReply::Entries(entries))) => {
                entries.len() <= limit as usize
            }
            _ => false,
        };
        if !is_right {
            self.doing[session as usize] = Doing::Nothing;
            return Answer::Wrong;
        }
        if matches!(doing, Doing::ReadToWrite(_)) { Answer::Continue } else { Answer::Right }
    }

    fn failed(&mut self, session: u32) {
        // A read-modify-write whose read failed is over.
        self.doing[session as usize] = Doing::Nothing;
    }
}

impl Records {
    /// A record by its popularity that was there at the start.
    fn random_known(&mut self) -> u64 {
        let keys = u64::from(self.mix.keys);
        let drawn = self.choice.draw(keys, &mut self.random);
        if self.mix.distribution == Distribution::Latest { keys - 1 - drawn } else { drawn }
    }
}

fn read(out: &mut Vec<u8>, prefix: &[u8], record: u64) -> Access {
    let (bytes, length) = key(prefix, record);
    put(out, &KvOperation::Get { key: &bytes[..length] });
    Access::Query
}

fn write(out: &mut Vec<u8>, prefix: &[u8], record: u64, value: &[u8]) -> Access {
    let (bytes, length) = key(prefix, record);
    put(out, &KvOperation::Put { key: &bytes[..length], value });
    Access::Order
}

/// Most bytes in front of a key's number.
const LONGEST_PREFIX: usize = 16;
/// Digits of a key's number.
const DIGITS: usize = 10;

/// The key of a record: the prefix and ten digits, as in YCSB.
pub(super) fn key(prefix: &[u8], record: u64) -> ([u8; LONGEST_PREFIX + DIGITS], usize) {
    let mut key = [b'0'; LONGEST_PREFIX + DIGITS];
    let length = prefix.len() + DIGITS;
    key[..prefix.len()].copy_from_slice(prefix);
    let mut rest = record;
    for digit in key[prefix.len()..length].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    (key, length)
}

pub(super) fn put(out: &mut Vec<u8>, operation: &KvOperation<'_>) {
    operation.encode(out).expect("keys are short, and the size of values was checked at start");
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIX: RecordsMix = RecordsMix {
        reads: 0,
        updates: 0,
        inserts: 0,
        scans: 0,
        read_modify_writes: 0,
        distribution: Distribution::Zipfian,
        keys: 100,
        value_size: 3,
        scan_length: 10,
        prefix: b"user",
    };

    fn reply(reply: &KvReply<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        reply.encode(&mut bytes);
        bytes
    }

    fn next(records: &mut Records, session: u32) -> (Access, Vec<u8>) {
        let mut operation = Vec::new();
        let access = records.next(session, &mut operation);
        (access, operation)
    }

    #[test]
    fn keys_are_numbers_with_leading_zeros() {
        let text = |record| {
            let (bytes, length) = key(b"user", record);
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        };
        assert_eq!(text(0), "user0000000000");
        assert_eq!(text(u32::MAX.into()), "user4294967295");
    }

    #[test]
    fn operations_come_in_the_shares_asked_for() {
        let shares = RecordsMix {
            reads: 30,
            updates: 25,
            inserts: 20,
            scans: 15,
            read_modify_writes: 10,
            ..MIX
        };
        let mut records = Records::new(shares, 1, 0, 1);
        let mut counts = [0; 5];
        for _ in 0..20_000 {
            records.doing.clear();
            next(&mut records, 0);
            counts[match records.doing[0] {
                Doing::Read { .. } => 0,
                Doing::Update => 1,
                Doing::Insert(_) => 2,
                Doing::Scan { .. } => 3,
                Doing::ReadToWrite(_) => 4,
                Doing::Nothing => unreachable!(),
            }] += 1;
        }
        for (count, percent) in counts.into_iter().zip([30, 25, 20, 15, 10]) {
            let expected = 200 * percent;
            assert!((expected - 300..expected + 300).contains(&count), "{counts:?}");
        }
    }

    /// In whatever order the operations of sessions end.
    #[test]
    fn the_same_seed_gives_the_same_operations() {
        let mix = RecordsMix { reads: 40, inserts: 10, scans: 10, read_modify_writes: 20, ..MIX };
        let sequence = |seed, sessions: u32, index| {
            let mut records = Records::new(mix, seed, index, 2);
            let drawn = |n: u32| {
                let session = n % sessions;
                if let Some(doing) = records.doing.get_mut(session as usize) {
                    *doing = Doing::Nothing;
                }
                next(&mut records, session)
            };
            (0..500).map(drawn).collect::<Vec<_>>()
        };
        assert_eq!(sequence(1, 1, 0), sequence(1, 7, 0));
        assert_ne!(sequence(1, 1, 0), sequence(2, 1, 0));
        assert_ne!(sequence(1, 1, 0), sequence(1, 1, 1));
    }

    #[test]
    fn a_read_modify_write_is_a_read_and_then_a_write_of_the_same_key() {
        let mut records = Records::new(RecordsMix { read_modify_writes: 100, ..MIX }, 1, 0, 1);
        let (access, first) = next(&mut records, 0);
        assert_eq!(access, Access::Query);
        let KvOperation::Get { key } = KvOperation::decode(&first).unwrap() else { panic!() };
        assert_eq!(records.acknowledged(0, &reply(&KvReply::Value(b"abc"))), Answer::Continue);
        let (access, second) = next(&mut records, 0);
        assert_eq!(access, Access::Order);
        let written = KvOperation::Put { key, value: b"vvv" };
        assert_eq!(KvOperation::decode(&second).unwrap(), written);
        let stored = reply(&KvReply::Stored { replaced: true });
        assert_eq!(records.acknowledged(0, &stored), Answer::Right);
        // After a read that failed comes another operation, not the write.
        next(&mut records, 0);
        records.failed(0);
        assert_eq!(next(&mut records, 0).0, Access::Query);
    }

    #[test]
    fn threads_insert_different_records_and_the_latest_are_read() {
        let mix = RecordsMix { reads: 50, inserts: 50, distribution: Distribution::Latest, ..MIX };
        let mut inserted = std::collections::BTreeSet::new();
        for thread in 0..3 {
            let mut records = Records::new(mix, 1, thread, 3);
            for _ in 0..200 {
                let (_, operation) = next(&mut records, 0);
                match KvOperation::decode(&operation).unwrap() {
                    KvOperation::Put { key, .. } => assert!(inserted.insert(key.to_vec())),
                    // What it reads is there from the start, or its own.
                    KvOperation::Get { key } => {
                        assert!(key < b"user0000000100".as_slice() || inserted.contains(key));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(inserted.len() > 200);
    }

    /// A new record may be absent until its insertion is acknowledged, and not after it.
    #[test]
    fn a_record_that_was_acknowledged_must_be_there() {
        let absent = reply(&KvReply::Absent);
        let mut records = Records::new(RecordsMix { inserts: 100, ..MIX }, 1, 0, 1);
        next(&mut records, 0);
        let record = records.own(0);
        assert!(!records.is_known(record));
        records.doing[0] = Doing::Read { is_known: records.is_known(record) };
        assert_eq!(records.acknowledged(0, &absent), Answer::Right);
        records.doing[0] = Doing::Insert(0);
        let stored = reply(&KvReply::Stored { replaced: false });
        assert_eq!(records.acknowledged(0, &stored), Answer::Right);
        assert!(records.is_known(record));
        records.doing[0] = Doing::Read { is_known: records.is_known(record) };
        assert_eq!(records.acknowledged(0, &absent), Answer::Wrong);
    }

    #[test]
    fn an_answer_that_no_store_gives_is_refused() {
        let mut records = Records::new(MIX, 1, 0, 1);
        next(&mut records, 0);
        let right = reply(&KvReply::Stored { replaced: true });
        assert_eq!(records.acknowledged(0, &right), Answer::Right);
        for wrong in [KvReply::Stored { replaced: false }, KvReply::Value(b"abc"), KvReply::Absent]
        {
            records.doing[0] = Doing::Update;
            assert_eq!(records.acknowledged(0, &reply(&wrong)), Answer::Wrong);
        }
        records.doing[0] = Doing::Read { is_known: true };
        assert_eq!(records.acknowledged(0, &reply(&KvReply::Value(b"abcd"))), Answer::Wrong);
        records.doing[0] = Doing::Read { is_known: true };
        assert_eq!(records.acknowledged(0, b"nonsense"), Answer::Wrong);
    }
}
