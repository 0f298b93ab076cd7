//! A guest's open sockets, by descriptor. They share the space of descriptors with files: sockets have the upper half of
//! it, so that Wasmtime's table of files goes on giving out the lowest free number.

use super::errno::Errno;
use super::socket::Socket;
use crate::net::stack::Stack;

/// The first descriptor of a socket. WasmEdge gives out any non-negative number, so guests take these.
const FIRST: u32 = 0x4000_0000;

/// Most sockets a guest has open at once.
const MOST: usize = 4096;

/// What a core module's sockets are made of.
pub struct Sockets {
    /// The guest's network.
    pub(super) stack: Stack,
    open: Vec<Option<Socket>>,
}

impl Sockets {
    /// Of a guest on this network; none is open.
    pub fn new(stack: Stack) -> Self {
        Self { stack, open: Vec::new() }
    }

    /// Whether a descriptor is one of a socket, open or not.
    pub(super) fn owns(descriptor: u32) -> bool {
        (FIRST..FIRST + MOST as u32).contains(&descriptor)
    }

    /// Gives a socket the lowest free descriptor.
    pub(super) fn insert(&mut self, socket: Socket) -> Result<u32, Errno> {
        let free = self.open.iter().position(Option::is_none).unwrap_or(self.open.len());
        if free == MOST {
            return Err(Errno::MFILE);
        }
        if free == self.open.len() {
            self.open.push(None);
        }
        self.open[free] = Some(socket);
        Ok(FIRST + free as u32)
    }

    /// An open socket. A file is none.
    pub(super) fn get(&mut self, descriptor: u32) -> Result<&mut Socket, Errno> {
        self.with_stack(descriptor).map(|(socket, _)| socket)
    }

    /// An open socket, and the network it is of.
    pub(super) fn with_stack(&mut self, descriptor: u32) -> Result<(&mut Socket, &Stack), Errno> {
        if !Self::owns(descriptor) {
            return Err(Errno::NOTSOCK);
        }
        let slot = self.open.get_mut((descriptor - FIRST) as usize);
        Ok((slot.and_then(Option::as_mut).ok_or(Errno::BADF)?, &self.stack))
    }

    /// Closes a socket.
    pub(super) fn close(&mut self, descriptor: u32) -> Result<(), Errno> {
        self.get(descriptor)?;
        self.open[(descriptor - FIRST) as usize] = None;
        Ok(())
    }

    /// `fd_renumber` between two sockets: the second is closed and becomes the first.
    pub(super) fn renumber(&mut self, from: u32, to: u32) -> Result<(), Errno> {
        self.get(from)?;
        self.get(to)?;
        if from != to {
            self.open[(to - FIRST) as usize] = self.open[(from - FIRST) as usize].take();
        }
        Ok(())
    }
}
