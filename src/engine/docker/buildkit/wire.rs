//! Protobuf, as far as builds and sessions need it: fields of a message, and messages of a few fields.

/// A field's value; numbers of fixed width say nothing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field<'b> {
    /// A varint.
    Number(u64),
    /// A string, bytes or a message.
    Bytes(&'b [u8]),
}

/// The fields of a message, by number. What is damaged ends them.
pub(super) struct Fields<'b>(pub &'b [u8]);

impl<'b> Iterator for Fields<'b> {
    type Item = (u64, Field<'b>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let key = varint(&mut self.0)?;
            let value = match key & 7 {
                0 => Field::Number(varint(&mut self.0)?),
                2 => {
                    let length = usize::try_from(varint(&mut self.0)?).ok()?;
                    let (value, rest) = self.0.split_at_checked(length)?;
                    self.0 = rest;
                    Field::Bytes(value)
                }
                width @ (1 | 5) => {
                    self.0 = self.0.get(if width == 1 { 8 } else { 4 }..)?;
                    continue;
                }
                _ => return None,
            };
            return Some((key >> 3, value));
        }
    }
}

/// The text of a field; empty when it is none.
pub(super) fn text(message: &[u8], number: u64) -> String {
    let found = Fields(message).find_map(|(key, field)| match field {
        Field::Bytes(bytes) if key == number => Some(String::from_utf8_lossy(bytes).into_owned()),
        Field::Bytes(_) | Field::Number(_) => None,
    });
    found.unwrap_or_default()
}

/// Appends a field of bytes to a message.
pub(super) fn put(message: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    message.push(number << 3 | 2);
    let mut length = bytes.len();
    while length > 0x7f {
        message.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(bytes);
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_they_were_put() {
        let mut message = vec![0x18, 0xac, 0x02, 0x25, 1, 2, 3, 4];
        put(&mut message, 1, b"name");
        put(&mut message, 2, &vec![b'x'; 300]);
        let fields: Vec<_> = Fields(&message).map(|(number, _)| number).collect();
        assert_eq!(fields, [3, 1, 2]);
        assert_eq!(Fields(&message).next(), Some((3, Field::Number(300))));
        assert_eq!(
            (text(&message, 1).as_str(), text(&message, 2).len(), text(&message, 9).as_str()),
            ("name", 300, "")
        );
    }

    #[test]
    fn what_is_damaged_ends() {
        for bytes in [&[0x0a, 0x05, b'x'][..], &[0xff; 20], &[0x0b], &[0x09, 1], &[]] {
            assert_eq!(Fields(bytes).count(), 0, "{bytes:?}");
        }
    }
}
