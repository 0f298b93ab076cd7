//! `wasi:sockets@0.3` over a [`Stack`](crate::net::stack::Stack): as the interfaces of 0.2 beside it, in the shape of 0.3, where
//! waiting is a call that returns later and data are streams.
//!
//! Wasmtime's own sockets of 0.3 are not linked at all: what is not implemented here is not there.

mod tcp;
mod udp;

use std::net::SocketAddr;

use wasmtime::component::{Accessor, Linker};
use wasmtime_wasi::p3::bindings::sockets::ip_name_lookup::{self, ErrorCode as LookupError};
use wasmtime_wasi::p3::bindings::sockets::types::{self, ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress};
use wasmtime_wasi::p3::sockets::SocketError;

use super::super::host::State;
use super::{Sockets, View};
use crate::net::stack::NetError;

/// Adds the sockets of 0.3 to a linker that has none.
pub fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    types::add_to_linker::<State, Sockets>(linker, State::network)?;
    ip_name_lookup::add_to_linker::<State, Sockets>(linker, State::network)
}

impl types::Host for View<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }
}

impl ip_name_lookup::Host for View<'_> {}

impl ip_name_lookup::HostWithStore<State> for Sockets {
    async fn resolve_addresses(
        accessor: &Accessor<State, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Vec<IpAddress>, LookupError>> {
        if name.is_empty() {
            return Ok(Err(LookupError::InvalidArgument));
        }
        let stack = accessor.with(|mut access| access.get().stack.clone());
        Ok(match stack.lookup(&name).await {
            Ok(found) => Ok(found.into_iter().map(Into::into).collect()),
            Err(NetError::Refused(_)) => Err(LookupError::AccessDenied),
            Err(NetError::UnknownName) => Err(LookupError::NameUnresolvable),
            Err(NetError::Io(_)) => Err(LookupError::TemporaryResolverFailure),
        })
    }
}

/// A family as 0.2 names it.
fn named(family: IpAddressFamily) -> super::IpAddressFamily {
    match family {
        IpAddressFamily::Ipv4 => super::IpAddressFamily::Ipv4,
        IpAddressFamily::Ipv6 => super::IpAddressFamily::Ipv6,
    }
}

fn fits(family: IpAddressFamily, address: SocketAddr) -> bool {
    super::fits(named(family), address)
}

fn spoken(family: IpAddressFamily, address: SocketAddr) -> IpSocketAddress {
    super::spoken(named(family), address).into()
}

/// What the network said, as 0.3 names it.
fn refusal(error: NetError) -> ErrorCode {
    match error {
        NetError::Refused(_) => ErrorCode::AccessDenied,
        NetError::UnknownName => ErrorCode::RemoteUnreachable,
        NetError::Io(error) => error.into(),
    }
}
