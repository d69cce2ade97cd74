//! Which slot of the log has a batch, by the batch's digest.
//!
//! A hash table with chains inside arrays of a fixed size: nothing is allocated. An entry outlives its
//! batch until its place is used again, so a look-up compares the digest with what the place holds now.
//!
//! Look-ups are rare, and batches are not: so a batch only leaves a note, and the next look-up takes
//! the notes in. If there is none for as many batches as the log has places, notes are no longer taken,
//! and it goes through the whole log once. So each batch is taken in at most once, however often
//! somebody asks.

use hybster_tss::Digest;

/// No place.
const NONE: u32 = u32::MAX;

/// An index of the places of a log.
pub(super) struct Digests {
    /// By bucket, the place that came last.
    first: Vec<u32>,
    places: Vec<Place>,
    /// Places that got a batch since the last look-up, as many as the log has at most: with so many it
    /// goes through the whole log.
    noted: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Place {
    bucket: u32,
    before: u32,
    after: u32,
}

impl Digests {
    /// For a log with this many places.
    pub(super) fn new(places: usize) -> Self {
        let place = Place { bucket: NONE, before: NONE, after: NONE };
        let buckets = (2 * places).next_power_of_two();
        Self {
            first: vec![NONE; buckets],
            places: vec![place; places],
            noted: Vec::with_capacity(places),
        }
    }

    /// A place has another batch from now on.
    #[inline]
    pub(super) fn note(&mut self, place: usize) {
        if self.noted.len() < self.places.len() {
            self.noted.push(place as u32);
        }
    }

    /// Takes in what changed since the last time. `digest_at` says what a place has.
    pub(super) fn update(&mut self, digest_at: impl Fn(usize) -> Option<Digest>) {
        let mut noted = std::mem::take(&mut self.noted);
        if noted.len() == self.places.len() {
            noted.clear();
            noted.extend(0..self.places.len() as u32);
        }
        for place in noted.drain(..) {
            if let Some(digest) = digest_at(place as usize) {
                self.put(&digest, place as usize);
            }
        }
        self.noted = noted;
    }

    /// A digest is a hash already.
    fn bucket(&self, digest: &Digest) -> usize {
        let [a, b, c, d, ..] = digest.0;
        u32::from_le_bytes([a, b, c, d]) as usize & (self.first.len() - 1)
    }

    /// Whether the next look-up of a digest comes to a place: for invariants.
    pub(super) fn reaches(&self, digest: &Digest, place: usize) -> bool {
        self.noted.len() == self.places.len()
            || self.noted.contains(&(place as u32))
            || self.find(digest).any(|at| at == place)
    }

    /// A batch with this digest is at a place.
    fn put(&mut self, digest: &Digest, place: usize) {
        let Place { bucket, before, after } = self.places[place];
        if bucket != NONE {
            match before {
                NONE => self.first[bucket as usize] = after,
                before => self.places[before as usize].after = after,
            }
            if after != NONE {
                self.places[after as usize].before = before;
            }
        }
        let bucket = self.bucket(digest);
        let after = std::mem::replace(&mut self.first[bucket], place as u32);
        if after != NONE {
            self.places[after as usize].before = place as u32;
        }
        self.places[place] = Place { bucket: bucket as u32, before: NONE, after };
    }

    /// Places that may have a batch with this digest, as of the last update.
    pub(super) fn find(&self, digest: &Digest) -> impl Iterator<Item = usize> {
        let mut next = self.first[self.bucket(digest)];
        std::iter::from_fn(move || {
            let place = (next != NONE).then_some(next as usize)?;
            next = self.places[place].after;
            Some(place)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_as_long_as_they_are_not_used_again() {
        // Four digests in two buckets, over three places: each is unlinked from the middle, from the
        // front and from the end of a chain.
        let digest = |number: u8| Digest([number % 2, 0, 0, 0].repeat(8).try_into().unwrap());
        let mut index = Digests::new(3);
        let (mut at, mut held) = ([None; 3], [None; 3]);
        for round in 0..200_u32 {
            let place = (round * 7 / 3 % 3) as usize;
            let number = (round * 5 / 2 % 4) as u8;
            index.note(place);
            held[place] = Some(digest(number));
            at[place] = Some(number % 2);
            assert!(index.reaches(&digest(number), place));
            // Between look-ups come more batches than there are places, and fewer.
            if round % 5 == 1 || round % 7 == 3 {
                continue;
            }
            index.update(|place| held[place]);
            for number in 0..2 {
                let mut found: Vec<usize> = index.find(&digest(number)).collect();
                found.sort_unstable();
                let expected: Vec<usize> = (0..3).filter(|p| at[*p] == Some(number)).collect();
                assert_eq!(found, expected, "round {round}");
            }
        }
    }
}
