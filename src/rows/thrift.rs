//! Thrift's compact protocol, as far as it is needed to find some numbers in what a parquet file says of itself, and to
//! pass over the rest.

/// The kinds of values that are looked at. Integers have one kind for each size, and are stored alike.
pub const INTEGER: u8 = 5;
pub const LIST: u8 = 9;
pub const STRUCT: u8 = 12;
/// Structures within each other that are gone through.
pub const NESTED: usize = 32;

/// What a value is read as for the number of its field, whatever kind it is said to be.
#[derive(Clone, Copy)]
pub enum Kind {
    Truth,
    Byte,
    Integer,
    Long,
    Text,
    Struct(Known),
    /// A list of structures.
    List(Known),
}

/// The fields of a structure that are known, by their numbers.
pub type Known = &'static [(i16, Kind)];

impl Kind {
    fn is_said(self, kind: u8) -> bool {
        match self {
            Self::Truth => matches!(kind, 1 | 2),
            Self::Byte => kind == 3,
            Self::Integer => kind == INTEGER,
            Self::Long => kind == 6,
            Self::Text => kind == 8,
            Self::Struct(_) => kind == STRUCT,
            Self::List(_) => kind == LIST,
        }
    }
}

/// A place in bytes of Thrift's compact protocol. `None`: they end, or are none of it.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What takes note of a field, or passes it: its number and its kind.
type Field<'f> = &'f mut dyn FnMut(&mut Reader, i16, u8) -> Option<()>;

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes that are behind it.
    pub fn passed(&self) -> usize {
        self.at
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn pass(&mut self, bytes: u64) -> Option<()> {
        let left = self.bytes.len() - self.at;
        self.at += usize::try_from(bytes).ok().filter(|bytes| *bytes <= left)?;
        Some(())
    }

    /// A number in seven bits a byte.
    fn count(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// A number whose last bit is its sign.
    pub fn integer(&mut self) -> Option<i64> {
        let number = self.count()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// Puts the integer that comes next, which has 32 bits, in place of a smaller one.
    pub fn largest(&mut self, number: &mut i64) -> Option<()> {
        *number = i64::from(i32::try_from(self.integer()?).ok()?).max(*number);
        Some(())
    }

    /// The kind and the number of a list's elements.
    pub fn list(&mut self) -> Option<(u8, u64)> {
        let head = self.byte()?;
        let count = if head >> 4 == 15 { self.count()? } else { u64::from(head >> 4) };
        Some((head & 15, count))
    }

    /// Goes through a structure: `field` reads or skips the value of each field, whose number and kind it gets.
    pub fn fields(&mut self, depth: usize, field: Field) -> Option<()> {
        depth.checked_sub(1)?;
        let mut id: i16 = 0;
        loop {
            let head = self.byte()?;
            let kind = head & 15;
            if kind == 0 {
                return Some(());
            }
            id = match head >> 4 {
                0 => self.integer()? as i16,
                more => id.checked_add(more.into())?,
            };
            field(self, id, kind)?;
        }
    }

    /// Passes the value of a field. One that is known has to be of its kind, and so have those in it.
    pub fn expect(&mut self, known: Known, id: i16, kind: u8, depth: usize) -> Option<()> {
        let Some((_, expected)) = known.iter().find(|(known, _)| *known == id) else {
            return self.skip(kind, depth);
        };
        let depth = depth.checked_sub(1)?;
        let inner = |reader: &mut Self, known: Known| {
            reader.fields(depth, &mut |reader, id, kind| reader.expect(known, id, kind, depth))
        };
        match *expected {
            expected if !expected.is_said(kind) => None,
            Kind::Struct(known) => inner(self, known),
            Kind::List(known) => {
                let (kind, count) = self.list()?;
                (0..count).try_for_each(|_| if kind == STRUCT { inner(self, known) } else { None })
            }
            _ => self.skip(kind, depth + 1),
        }
    }

    /// Passes a value of this kind, with at most so many structures in it.
    pub fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            // The kind itself says whether it is true or false.
            1 | 2 => Some(()),
            3 => self.pass(1),
            4..=6 => self.count().map(drop),
            7 => self.pass(8),
            8 => self.count().and_then(|length| self.pass(length)),
            9 | 10 => {
                let (kind, count) = self.list()?;
                (0..count).try_for_each(|_| self.element(kind, depth))
            }
            11 => {
                let count = self.count()?;
                let kinds = if count > 0 { self.byte()? } else { 0 };
                (0..count).try_for_each(|_| {
                    self.element(kinds >> 4, depth)?;
                    self.element(kinds & 15, depth)
                })
            }
            STRUCT => self.fields(depth, &mut |reader, _, kind| reader.skip(kind, depth)),
            13 => self.pass(16),
            _ => None,
        }
    }

    /// An element of a list or a map. Truth takes a byte there, which the crate does not pass: it is refused.
    fn element(&mut self, kind: u8, depth: usize) -> Option<()> {
        if matches!(kind, 1 | 2) { None } else { self.skip(kind, depth) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_looked_at_is_skipped() {
        let all = [
            &[0x11, 0x12][..],
            &[0x13, 9, 0x14, 1, 0x16, 0x80, 1, 0x17, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x18, 2, b'a', b'b', 0x19, 1, 0x1a, 0x15, 7, 0x1b, 1, 0x85, 1, b'c', 9, 0x1b, 0],
            &[0x1c, 0x15, 4, 0, 0x1d],
            &[7; 16],
            &[0x05, 6, 8, 0],
        ]
        .concat();
        let mut reader = Reader::new(&all);
        let mut seen = vec![];
        let mut last = 0;
        reader
            .fields(NESTED, &mut |reader, id, kind| {
                seen.push((id, kind));
                if kind == INTEGER {
                    last = reader.integer()?;
                    return Some(());
                }
                reader.skip(kind, NESTED)
            })
            .unwrap();
        assert_eq!((reader.passed(), last, seen.len(), seen.last().copied()), (all.len(), 4, 14, Some((3, INTEGER))));
        // Structures without end.
        assert_eq!(Reader::new(&[0x1c; 100]).skip(STRUCT, NESTED), None);
        // Truth in lists and maps.
        let skip = |kind: u8, bytes: &[u8]| Reader::new(bytes).skip(kind, NESTED);
        assert_eq!([skip(9, &[0x21, 1, 2]), skip(10, &[0x12, 1]), skip(11, &[1, 0x13, 1, 1])], [None; 3]);
        assert_eq!([skip(9, &[1]), skip(9, &[0x23, 1, 2]), skip(11, &[1, 0x33, 1, 1])], [Some(()); 3]);
    }

    #[test]
    fn numbers_have_32_bits() {
        let mut most = 1;
        Reader::new(&[0xfe, 0xff, 0xff, 0xff, 15]).largest(&mut most).unwrap();
        assert_eq!(most, i64::from(i32::MAX));
        Reader::new(&[3]).largest(&mut most).unwrap();
        assert_eq!(most, i64::from(i32::MAX));
        // 2^31, and 2^32 + 1, which the crate takes for one.
        for bytes in [[0x80, 0x80, 0x80, 0x80, 16], [0x82, 0x80, 0x80, 0x80, 32]] {
            assert_eq!(Reader::new(&bytes).largest(&mut most), None);
        }
    }

    #[test]
    fn what_is_known_has_its_kind() {
        const KNOWN: Known = &[
            (1, Kind::Integer),
            (2, Kind::Struct(&[(1, Kind::Truth), (2, Kind::Byte)])),
            (3, Kind::List(&[(1, Kind::Text), (2, Kind::Long)])),
        ];
        let read = |bytes: &[u8]| {
            Reader::new(bytes).fields(NESTED, &mut |reader, id, kind| reader.expect(KNOWN, id, kind, NESTED))
        };
        let right = [0x15, 2, 0x1c, 0x11, 0x13, 9, 0, 0x19, 0x1c, 0x18, 0, 0x16, 2, 0, 0x16, 2, 0];
        assert_eq!(read(&right), Some(()));
        // Each known field with the kind that is one more; the last field is not known.
        for at in [0, 2, 4, 7, 8, 9, 11] {
            let mut wrong = right;
            wrong[at] += 1;
            assert_eq!(read(&wrong), None, "{at}");
        }
        assert_eq!(read(&[0x15, 2, 0x1c, 0x12, 0x13, 9, 0, 0]), Some(()));
        assert_eq!(read(&[0x39, 0x13, 1, 0]), None);
    }
}
