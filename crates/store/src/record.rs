//! Records as bytes: revision, key and value one after the other, lengths as LEB128 numbers.
//!
//! Pure. What is decoded here has passed its checksum already, so a failure means a bug or a forged file, never a torn write.

use crate::Record;
use bytes::Bytes;

/// A record that borrows from the bytes it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Borrowed<'a> {
    pub revision: u64,
    pub key: &'a str,
    pub value: Option<&'a [u8]>,
}

impl<'a> From<&'a Record> for Borrowed<'a> {
    fn from(record: &'a Record) -> Self {
        Borrowed { revision: record.revision, key: &record.key, value: record.value.as_deref() }
    }
}

impl Borrowed<'_> {
    /// A copy of its own: a value must not keep a whole frame in memory.
    pub fn to_owned(self) -> Record {
        Record { revision: self.revision, key: self.key.to_owned(), value: self.value.map(Bytes::copy_from_slice) }
    }

    /// Keys and values, the measure of every bound.
    pub fn size(&self) -> usize {
        self.key.len() + self.value.map_or(0, <[u8]>::len)
    }
}

/// Bytes that a record takes beside its key and value, at most: three numbers.
pub(crate) const OVERHEAD: usize = 3 * 10;

/// Appends a record to `out`. The value's length is written plus one, 0 stands for "deleted".
pub(crate) fn encode(record: Borrowed<'_>, out: &mut Vec<u8>) {
    number(record.revision, out);
    number(record.key.len() as u64, out);
    out.extend_from_slice(record.key.as_bytes());
    number(record.value.map_or(0, |value| value.len() as u64 + 1), out);
    out.extend_from_slice(record.value.unwrap_or_default());
}

/// The records of a frame's body; the last item is an error if the bytes make no sense.
pub(crate) struct Records<'a>(pub &'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<Borrowed<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = decode(&mut self.0);
        if record.is_err() {
            self.0 = &[];
        }
        Some(record)
    }
}

fn decode<'a>(bytes: &mut &'a [u8]) -> Result<Borrowed<'a>, &'static str> {
    let revision = read_number(bytes)?;
    let key = read_number(bytes)?;
    let key = std::str::from_utf8(read_bytes(key, bytes)?).map_err(|_| "a key is not UTF-8")?;
    let value = match read_number(bytes)? {
        0 => None,
        length => Some(read_bytes(length - 1, bytes)?),
    };
    Ok(Borrowed { revision, key, value })
}

fn number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_number(bytes: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or("a record ends within a number")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number has more than 64 bits")
}

fn read_bytes<'a>(length: u64, bytes: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let length = usize::try_from(length).map_err(|_| "a length is out of range")?;
    let (head, rest) = bytes.split_at_checked(length).ok_or("a record is longer than its frame")?;
    *bytes = rest;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(records in prop::collection::vec((any::<u64>(), ".{0,40}", any::<Option<Vec<u8>>>()), 0..20)) {
            let mut bytes = Vec::new();
            let records: Vec<Record> = records.into_iter()
                .map(|(revision, key, value)| Record { revision, key, value: value.map(Bytes::from) }).collect();
            for record in &records {
                encode(record.into(), &mut bytes);
            }
            let back: Vec<Record> = Records(&bytes).map(|record| record.unwrap().to_owned()).collect();
            prop_assert_eq!(back, records);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Records(&bytes).count();
        }
    }
}
