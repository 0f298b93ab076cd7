//! A guest's memory as preview 1 functions see it: bytes at 32-bit addresses, every access checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::errno::Errno;

/// Most buffers of one call, as WasmEdge and Linux bound them.
const VECTORS: u32 = 1024;

/// An address in a guest's memory.
pub(super) type Pointer = u32;

/// Checked access to a guest's memory.
pub(super) struct Memory<'a>(pub(super) &'a mut [u8]);

impl Memory<'_> {
    pub(super) fn bytes(&self, at: Pointer, length: u32) -> Result<&[u8], Errno> {
        let start = at as usize;
        self.0.get(start..start + length as usize).ok_or(Errno::FAULT)
    }

    pub(super) fn bytes_mut(&mut self, at: Pointer, length: u32) -> Result<&mut [u8], Errno> {
        let start = at as usize;
        self.0.get_mut(start..start + length as usize).ok_or(Errno::FAULT)
    }

    fn array<const N: usize>(&self, at: Pointer) -> Result<[u8; N], Errno> {
        let bytes = self.bytes(at, N as u32)?;
        Ok(bytes.try_into().expect("it has that length"))
    }

    pub(super) fn u8(&self, at: Pointer) -> Result<u8, Errno> {
        Ok(self.array::<1>(at)?[0])
    }

    pub(super) fn u16(&self, at: Pointer) -> Result<u16, Errno> {
        self.array(at).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&self, at: Pointer) -> Result<u32, Errno> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub(super) fn i32(&self, at: Pointer) -> Result<i32, Errno> {
        self.array(at).map(i32::from_le_bytes)
    }

    pub(super) fn u64(&self, at: Pointer) -> Result<u64, Errno> {
        self.array(at).map(u64::from_le_bytes)
    }

    pub(super) fn put(&mut self, at: Pointer, bytes: &[u8]) -> Result<(), Errno> {
        let length = u32::try_from(bytes.len()).map_err(|_| Errno::FAULT)?;
        self.bytes_mut(at, length)?.copy_from_slice(bytes);
        Ok(())
    }

    pub(super) fn put_u16(&mut self, at: Pointer, value: u16) -> Result<(), Errno> {
        self.put(at, &value.to_le_bytes())
    }

    pub(super) fn put_u32(&mut self, at: Pointer, value: u32) -> Result<(), Errno> {
        self.put(at, &value.to_le_bytes())
    }

    /// The buffers of an `iovec` or `ciovec` array that are not empty, as (address, length); all of them are in bounds.
    pub(super) fn vectors(&self, at: Pointer, count: u32) -> Result<Vec<(Pointer, u32)>, Errno> {
        if count > VECTORS {
            return Err(Errno::INVAL);
        }
        let mut vectors = Vec::with_capacity(count as usize);
        for index in 0..count {
            let entry = offset(at, index * 8)?;
            let (start, length) = (self.u32(entry)?, self.u32(offset(entry, 4)?)?);
            self.bytes(start, length)?;
            if length > 0 {
                vectors.push((start, length));
            }
        }
        Ok(vectors)
    }

    /// The IP address in an `Address`: four or sixteen octets, or WasmEdge's storage of 128 bytes, whose first two are
    /// the family.
    pub(super) fn ip(&self, at: Pointer) -> Result<IpAddr, Errno> {
        let (buffer, length) = self.address(at)?;
        match length {
            4 => Ok(Ipv4Addr::from(self.array::<4>(buffer)?).into()),
            16 => Ok(Ipv6Addr::from(self.array::<16>(buffer)?).into()),
            STORAGE => match self.u16(buffer)? {
                INET4 => Ok(Ipv4Addr::from(self.array::<4>(offset(buffer, 2)?)?).into()),
                INET6 => Ok(Ipv6Addr::from(self.array::<16>(offset(buffer, 2)?)?).into()),
                _ => Err(Errno::AFNOSUPPORT),
            },
            _ => Err(Errno::INVAL),
        }
    }

    /// Buffer and its length of an `Address`.
    pub(super) fn address(&self, at: Pointer) -> Result<(Pointer, u32), Errno> {
        Ok((self.u32(at)?, self.u32(offset(at, 4)?)?))
    }

    /// Writes an address into the buffer of an `Address`, in the form its length asks for.
    pub(super) fn put_ip(&mut self, at: Pointer, ip: IpAddr) -> Result<(), Errno> {
        let (buffer, length) = self.address(at)?;
        let (family, octets) = match ip {
            IpAddr::V4(ip) => (INET4, ip.octets().to_vec()),
            IpAddr::V6(ip) => (INET6, ip.octets().to_vec()),
        };
        match length {
            STORAGE => {
                self.put_u16(buffer, family)?;
                self.put(offset(buffer, 2)?, &octets)
            }
            4 | 16 if octets.len() <= length as usize => self.put(buffer, &octets),
            4 => Err(Errno::NOMEM),
            _ => Err(Errno::INVAL),
        }
    }
}

/// Length of WasmEdge's address storage.
pub(super) const STORAGE: u32 = 128;
/// Family of IPv4 addresses.
pub(super) const INET4: u16 = 1;
/// Family of IPv6 addresses.
pub(super) const INET6: u16 = 2;

/// An address further on.
pub(super) fn offset(at: Pointer, by: u32) -> Result<Pointer, Errno> {
    at.checked_add(by).ok_or(Errno::FAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A memory whose first eight bytes are an `Address` with a buffer of `length` bytes at 16.
    fn with_buffer(length: u32) -> Vec<u8> {
        let mut bytes = vec![0; 256];
        bytes[..4].copy_from_slice(&16_u32.to_le_bytes());
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    #[test]
    fn addresses_are_read_as_they_were_written() {
        let four: IpAddr = [192, 168, 1, 2].into();
        let six: IpAddr = "fd00::1:2".parse().unwrap();
        for (length, ip) in [(4, four), (STORAGE, four), (16, six), (STORAGE, six)] {
            let mut bytes = with_buffer(length);
            let mut memory = Memory(&mut bytes);
            memory.put_ip(0, ip).unwrap();
            assert_eq!(memory.ip(0), Ok(ip), "a buffer of {length} bytes");
        }
    }

    #[test]
    fn an_address_that_does_not_fit_is_an_error() {
        let six: IpAddr = "fd00::1".parse().unwrap();
        let mut bytes = with_buffer(4);
        assert_eq!(Memory(&mut bytes).put_ip(0, six), Err(Errno::NOMEM));
        let mut bytes = with_buffer(5);
        assert_eq!(Memory(&mut bytes).ip(0), Err(Errno::INVAL));
    }

    #[test]
    fn nothing_outside_the_memory_is_touched() {
        let mut bytes = vec![0; 16];
        let mut memory = Memory(&mut bytes);
        assert_eq!(memory.u32(13), Err(Errno::FAULT));
        assert_eq!(memory.put_u32(u32::MAX, 1), Err(Errno::FAULT));
        assert_eq!(memory.vectors(0, VECTORS + 1), Err(Errno::INVAL));
        assert_eq!(memory.vectors(8, 2), Err(Errno::FAULT));
        memory.put_u32(0, 8).unwrap();
        memory.put_u32(4, 9).unwrap();
        assert_eq!(memory.vectors(0, 1), Err(Errno::FAULT), "a buffer that ends behind it");
        assert_eq!(offset(u32::MAX, 1), Err(Errno::FAULT));
    }
}
