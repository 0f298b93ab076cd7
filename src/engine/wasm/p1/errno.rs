//! Error numbers of preview 1, and what of the network's errors they tell.

use std::io;

use crate::net::stack::NetError;

/// An error number of WASI preview 1 (`errno`), with WasmEdge's additions for name lookups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Errno(pub(super) u16);

impl Errno {
    pub(super) const ACCES: Self = Self(2);
    pub(super) const ADDRINUSE: Self = Self(3);
    pub(super) const ADDRNOTAVAIL: Self = Self(4);
    pub(super) const AFNOSUPPORT: Self = Self(5);
    pub(super) const AGAIN: Self = Self(6);
    pub(super) const ALREADY: Self = Self(7);
    pub(super) const BADF: Self = Self(8);
    pub(super) const CONNABORTED: Self = Self(13);
    pub(super) const CONNREFUSED: Self = Self(14);
    pub(super) const CONNRESET: Self = Self(15);
    pub(super) const DESTADDRREQ: Self = Self(17);
    pub(super) const FAULT: Self = Self(21);
    pub(super) const HOSTUNREACH: Self = Self(23);
    pub(super) const INPROGRESS: Self = Self(26);
    pub(super) const INVAL: Self = Self(28);
    pub(super) const IO: Self = Self(29);
    pub(super) const ISCONN: Self = Self(30);
    pub(super) const MFILE: Self = Self(33);
    pub(super) const MSGSIZE: Self = Self(35);
    pub(super) const NETUNREACH: Self = Self(40);
    pub(super) const NETDOWN: Self = Self(38);
    pub(super) const NOMEM: Self = Self(48);
    pub(super) const NOPROTOOPT: Self = Self(50);
    pub(super) const NOSYS: Self = Self(52);
    pub(super) const NOTCONN: Self = Self(53);
    pub(super) const NOTSOCK: Self = Self(57);
    pub(super) const NOTSUP: Self = Self(58);
    pub(super) const PERM: Self = Self(63);
    pub(super) const PIPE: Self = Self(64);
    pub(super) const SPIPE: Self = Self(70);
    pub(super) const TIMEDOUT: Self = Self(73);
    /// `getaddrinfo`: a hint flag it does not know.
    pub(super) const AIBADFLAG: Self = Self(79);
    /// `getaddrinfo`: a family it does not know.
    pub(super) const AIFAMILY: Self = Self(81);
    /// `getaddrinfo`: no room for results.
    pub(super) const AIMEMORY: Self = Self(82);
    /// `getaddrinfo`: the name has no address of the family.
    pub(super) const AINODATA: Self = Self(83);
    /// `getaddrinfo`: no such name.
    pub(super) const AINONAME: Self = Self(84);
    /// `getaddrinfo`: no such service.
    pub(super) const AISERVICE: Self = Self(85);
    /// `getaddrinfo`: a socket type it does not know.
    pub(super) const AISOCKTYPE: Self = Self(86);
}

/// What a function of preview 1 answers: 0, or the error number.
pub(super) fn answer(result: Result<(), Errno>) -> i32 {
    result.map_or_else(|errno| i32::from(errno.0), |()| 0)
}

impl From<&io::Error> for Errno {
    fn from(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused => Self::CONNREFUSED,
            Kind::ConnectionReset => Self::CONNRESET,
            Kind::ConnectionAborted => Self::CONNABORTED,
            Kind::HostUnreachable => Self::HOSTUNREACH,
            Kind::NetworkUnreachable => Self::NETUNREACH,
            Kind::NetworkDown => Self::NETDOWN,
            Kind::NotConnected => Self::NOTCONN,
            Kind::AddrInUse => Self::ADDRINUSE,
            Kind::AddrNotAvailable => Self::ADDRNOTAVAIL,
            Kind::BrokenPipe => Self::PIPE,
            Kind::WouldBlock => Self::AGAIN,
            Kind::TimedOut => Self::TIMEDOUT,
            Kind::PermissionDenied => Self::ACCES,
            Kind::InvalidInput => Self::INVAL,
            Kind::OutOfMemory => Self::NOMEM,
            Kind::Unsupported => Self::NOTSUP,
            Kind::UnexpectedEof => Self::CONNRESET,
            _ if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => Self::AFNOSUPPORT,
            _ if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => Self::MSGSIZE,
            _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => Self::MFILE,
            _ => Self::IO,
        }
    }
}

impl From<&NetError> for Errno {
    fn from(error: &NetError) -> Self {
        match error {
            NetError::Refused(_) => Self::ACCES,
            NetError::UnknownName => Self::AINONAME,
            NetError::Io(error) => error.into(),
        }
    }
}
