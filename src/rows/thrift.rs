//! Thrift's compact protocol, as far as it is needed to find some numbers in what a parquet file says of itself, and to
//! pass over the rest.

/// The kinds of values that are looked at. Integers have one kind for each size, and are stored alike.
pub const INTEGER: u8 = 5;
pub const LIST: u8 = 9;
pub const STRUCT: u8 = 12;
/// Structures within each other that are gone through.
pub const NESTED: usize = 32;

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

    /// Puts the integer that comes next in place of a smaller one.
    pub fn largest(&mut self, number: &mut i64) -> Option<()> {
        *number = self.integer()?.max(*number);
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

    /// An element of a list, in which truth takes a byte.
    fn element(&mut self, kind: u8, depth: usize) -> Option<()> {
        if matches!(kind, 1 | 2) { self.pass(1) } else { self.skip(kind, depth) }
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
            &[0x18, 2, b'a', b'b', 0x19, 0x21, 1, 2, 0x1a, 0x15, 7, 0x1b, 1, 0x85, 1, b'c', 9, 0x1b, 0],
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
    }
}
