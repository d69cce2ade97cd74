//! The stamps of a replica, and the samples of a load process, in files, from their processes to the one that makes
//! the report. All are this program, so the forms have no version.

use std::path::Path;

use super::Sample;
use crate::Error;
use crate::engine::{Point, Stamp};

/// Bytes of a stamp: client, session, number, order, time, point.
const BYTES: usize = 4 + 4 * 8 + 1;

/// Writes stamps, and how many are lost.
///
/// # Errors
/// If the disk refuses.
pub fn write(path: &Path, stamps: &[Stamp], lost: u64) -> Result<(), Error> {
    let mut bytes = Vec::with_capacity(8 + stamps.len() * BYTES);
    bytes.extend_from_slice(&lost.to_le_bytes());
    for stamp in stamps {
        bytes.extend_from_slice(&stamp.session.client.0.to_le_bytes());
        for field in [stamp.session.session, stamp.number.0, stamp.order.0, stamp.at_ns] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.push(stamp.point as u8);
    }
    std::fs::write(path, bytes).map_err(|e| Error::new(format!("{}: {e}", path.display())))
}

/// Reads what [`write()`] has written. Nothing, if the replica was killed before it did.
///
/// # Errors
/// If it is something else.
pub fn read(path: &Path) -> Result<(Vec<Stamp>, u64), Error> {
    let bytes = match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        read => read.map_err(|e| Error::new(format!("{}: {e}", path.display())))?,
    };
    decode(&bytes).ok_or_else(|| Error::new(format!("{}: it has no stamps", path.display())))
}

fn decode(bytes: &[u8]) -> Option<(Vec<Stamp>, u64)> {
    let (lost, rest) = bytes.split_first_chunk()?;
    let (stamps, []) = rest.as_chunks::<BYTES>() else { return None };
    let stamps = stamps.iter().map(stamp).collect::<Option<_>>()?;
    Some((stamps, u64::from_le_bytes(*lost)))
}

fn stamp(bytes: &[u8; BYTES]) -> Option<Stamp> {
    let (client, rest) = bytes.split_first_chunk()?;
    let (fields, [point]) = rest.as_chunks::<8>() else { return None };
    let field = |at: usize| fields.get(at).map(|bytes| u64::from_le_bytes(*bytes));
    let point = Point::ALL.into_iter().find(|p| *p as u8 == *point)?;
    Some(Stamp::new(
        point,
        (u32::from_le_bytes(*client), field(0)?, field(1)?),
        field(2)?,
        field(3)?,
    ))
}

/// Bytes of a sample: client, session, number, and three times.
const SAMPLE_BYTES: usize = 4 + 5 * 8;

/// Writes what a load process knows of the requests that it followed.
///
/// # Errors
/// If the disk refuses.
pub fn write_samples(path: &Path, samples: &[Sample]) -> Result<(), Error> {
    let mut bytes = Vec::with_capacity(samples.len() * SAMPLE_BYTES);
    for sample in samples {
        let (client, session, number) = sample.request;
        bytes.extend_from_slice(&client.to_le_bytes());
        for field in [session, number, sample.since_ns, sample.submitted_ns, sample.completed_ns] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
    }
    std::fs::write(path, bytes).map_err(|e| Error::new(format!("{}: {e}", path.display())))
}

/// Reads what [`write_samples`] has written.
///
/// # Errors
/// If it is not there, or something else.
pub fn read_samples(path: &Path) -> Result<Vec<Sample>, Error> {
    let wrong = |e: &dyn std::fmt::Display| Error::new(format!("{}: {e}", path.display()));
    let bytes = std::fs::read(path).map_err(|e| wrong(&e))?;
    let (samples, []) = bytes.as_chunks::<SAMPLE_BYTES>() else {
        return Err(wrong(&"it has no samples"));
    };
    samples.iter().map(sample).collect::<Option<_>>().ok_or_else(|| wrong(&"it has no samples"))
}

fn sample(bytes: &[u8; SAMPLE_BYTES]) -> Option<Sample> {
    let (client, rest) = bytes.split_first_chunk()?;
    let (fields, _) = rest.as_chunks::<8>();
    let field = |at: usize| fields.get(at).map(|bytes| u64::from_le_bytes(*bytes));
    Some(Sample {
        request: (u32::from_le_bytes(*client), field(0)?, field(1)?),
        since_ns: field(2)?,
        submitted_ns: field(3)?,
        completed_ns: field(4)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_as_they_were_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("samples");
        let request = (1, 2, u64::MAX);
        let samples = vec![Sample { request, since_ns: 3, submitted_ns: 4, completed_ns: 5 }; 2];
        write_samples(&path, &samples).unwrap();
        assert_eq!(read_samples(&path).unwrap(), samples);
        std::fs::write(&path, [0; 7]).unwrap();
        assert!(read_samples(&path).unwrap_err().to_string().contains("no samples"));
    }

    #[test]
    fn stamps_are_read_as_they_were_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stamps");
        assert_eq!(read(&path).unwrap(), (Vec::new(), 0));
        let stamps: Vec<Stamp> =
            Point::ALL.into_iter().map(|p| Stamp::new(p, (1, u64::MAX, 3), 4, 5)).collect();
        write(&path, &stamps, 6).unwrap();
        assert_eq!(read(&path).unwrap(), (stamps, 6));
        for wrong in [&b""[..], &[0; 9], &[0xff; 8 + BYTES]] {
            std::fs::write(&path, wrong).unwrap();
            assert!(read(&path).unwrap_err().to_string().contains("no stamps"));
        }
    }
}
