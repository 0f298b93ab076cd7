//! All channels of one agent: pure. What is heard changes them, what is due is put into frames, each in its turn, so that
//! no channel waits for another.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::Waker;

use super::frame::{self, Frames, Number, Opening, Said};
use super::window::{Overrun, Receiving, ReceivingDatagrams, Sending, SendingDatagrams};
use crate::net::agent::wire;

/// Channels, with those of the logs; the agent's `table.rs` holds the same.
pub(super) const CHANNELS: Number = 4224;
/// The channels of standard output and standard error.
pub(super) const LOGS: [Number; 2] = [0, 1];
/// Bytes that are put together before they are written.
const BATCH: usize = 64 * 1024;

/// The channels, and what else is to be told the agent.
#[derive(Debug)]
pub(super) struct State {
    channels: Vec<Option<Channel>>,
    free: Vec<Number>,
    /// Those that have something to tell, each once.
    due: VecDeque<Number>,
    health: Option<bool>,
    exit: Option<u8>,
    ping: bool,
    /// The agent is gone.
    pub(super) gone: bool,
}

/// One channel, as long as somebody holds it or the agent was not heard to have closed it.
#[derive(Debug)]
pub(super) struct Channel {
    /// To be asked for.
    opening: Option<Opening>,
    /// Its own and the other end's address, or the error number.
    pub(super) opened: Option<Result<(SocketAddr, SocketAddr), i32>>,
    pub(super) flow: Flow,
    /// Who waits for something to come, or for it to be open.
    pub(super) reader: Option<Waker>,
    /// Who waits to send.
    pub(super) writer: Option<Waker>,
    closing: Closing,
    is_due: bool,
}

/// What goes over a channel.
#[derive(Debug)]
pub(super) enum Flow {
    /// Nothing: connections come by channels of their own.
    Listener,
    Stream(Sending, Receiving),
    Datagrams(SendingDatagrams, ReceivingDatagrams),
}

impl Flow {
    pub(super) fn stream() -> Self {
        Self::Stream(Sending::new(), Receiving::default())
    }

    pub(super) fn datagrams() -> Self {
        Self::Datagrams(SendingDatagrams::new(), ReceivingDatagrams::default())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    Not,
    /// Nobody holds it any more.
    Wanted,
    /// The agent was told.
    Told,
}

impl Channel {
    fn new(opening: Option<Opening>, flow: Flow) -> Self {
        Self { opening, opened: None, flow, reader: None, writer: None, closing: Closing::Not, is_due: false }
    }

    /// Tells one piece of what is due; whether there is more.
    fn tell(&mut self, number: Number, out: &mut Frames) -> bool {
        if let Some(opening) = self.opening.take() {
            out.open(number, opening);
        }
        let held = self.closing == Closing::Not;
        let more = match &mut self.flow {
            Flow::Listener => false,
            Flow::Stream(sending, receiving) => {
                if held && receiving.is_due() {
                    out.credit(number, receiving.settle());
                }
                sending.send(number, out);
                sending.is_due()
            }
            Flow::Datagrams(sending, receiving) => {
                if held && receiving.is_due() {
                    out.credit(number, receiving.settle());
                }
                sending.send(number, out);
                sending.is_due()
            }
        };
        if !more && self.closing == Closing::Wanted {
            out.close(number);
            self.closing = Closing::Told;
        }
        more
    }

    fn allow(&mut self, count: usize) -> Result<(), Overrun> {
        match &mut self.flow {
            Flow::Listener => Ok(()),
            Flow::Stream(sending, _) => sending.allow(count),
            Flow::Datagrams(sending, _) => sending.allow(count),
        }
    }

    fn put(&mut self, data: &[u8]) -> Result<(), Overrun> {
        match &mut self.flow {
            // What still comes for a channel that nobody holds is lost, as it is for a socket that was closed.
            _ if self.closing != Closing::Not => Ok(()),
            Flow::Listener => Ok(()),
            Flow::Stream(_, receiving) => receiving.put(data),
            Flow::Datagrams(_, receiving) => match frame::datagram(data) {
                Some((from, bytes)) => receiving.put(bytes, from),
                None => Ok(()),
            },
        }
    }

    fn refuse(&mut self, errno: i32) {
        match &mut self.flow {
            Flow::Listener => {}
            Flow::Stream(sending, _) => sending.refuse(errno),
            Flow::Datagrams(sending, _) => sending.refuse(errno),
        }
    }
}

impl State {
    /// The channels of the logs are there from the beginning.
    pub(super) fn new() -> Self {
        let logs = LOGS.map(|_| Some(Channel::new(None, Flow::stream())));
        Self {
            channels: logs.into(),
            free: Vec::new(),
            due: VecDeque::new(),
            health: None,
            exit: None,
            ping: false,
            gone: false,
        }
    }

    /// A channel that is to be opened; none where all are taken.
    pub(super) fn open(&mut self, opening: Opening, flow: Flow) -> Option<Number> {
        let channel = Some(Channel::new(Some(opening), flow));
        let number = match self.free.pop() {
            Some(number) => {
                self.channels[number as usize] = channel;
                number
            }
            None => {
                let number = Number::try_from(self.channels.len()).ok().filter(|number| *number < CHANNELS)?;
                self.channels.push(channel);
                number
            }
        };
        self.queue(number);
        Some(number)
    }

    /// A channel that somebody holds.
    pub(super) fn channel(&mut self, number: Number) -> &mut Channel {
        self.channels[number as usize].as_mut().expect("it is there as long as it is held")
    }

    /// A channel has something to tell.
    pub(super) fn queue(&mut self, number: Number) {
        if let Some(channel) = &mut self.channels[number as usize]
            && !channel.is_due
        {
            channel.is_due = true;
            self.due.push_back(number);
        }
    }

    /// Nobody holds a channel any more. What was taken from its holder is still sent.
    pub(super) fn close(&mut self, number: Number) {
        let channel = self.channel(number);
        channel.closing = Closing::Wanted;
        (channel.reader, channel.writer) = (None, None);
        match &mut channel.flow {
            Flow::Listener => {}
            Flow::Stream(_, receiving) => *receiving = Receiving::default(),
            Flow::Datagrams(_, receiving) => *receiving = ReceivingDatagrams::default(),
        }
        self.queue(number);
    }

    pub(super) fn set_health(&mut self, healthy: bool) {
        self.health = Some(healthy);
    }

    /// The agent is to exit, once everything else was told.
    pub(super) fn exit(&mut self, code: u8) {
        self.exit = Some(code);
    }

    /// The agent is asked whether it is there.
    pub(super) fn ping(&mut self) {
        self.ping = true;
    }

    /// Whether anything is to be told.
    pub(super) fn has_news(&self) -> bool {
        !self.due.is_empty() || self.health.is_some() || self.exit.is_some() || self.ping
    }

    /// Puts together what is to be told, as much as one write is worth.
    pub(super) fn tell(&mut self, out: &mut Frames) {
        if let Some(healthy) = self.health.take() {
            out.plain(&wire::health(healthy));
        }
        if std::mem::take(&mut self.ping) {
            out.plain(b"P");
        }
        while out.0.len() < BATCH {
            let Some(number) = self.due.pop_front() else {
                if let Some(code) = self.exit.take() {
                    out.plain(&wire::exit(code));
                }
                return;
            };
            let Some(channel) = &mut self.channels[number as usize] else { continue };
            channel.is_due = false;
            if channel.tell(number, out) {
                self.queue(number);
            }
        }
    }

    /// Hears a frame; one about no channel comes back. Who is to be woken is added to `wake`.
    pub(super) fn hear(&mut self, bytes: &[u8], wake: &mut Vec<Waker>) -> Result<Option<wire::Said>, Overrun> {
        let Some(said) = frame::read(bytes) else { return Ok(None) };
        let number = match said {
            Said::Plain(said) => return Ok(Some(said)),
            Said::Opened(number, ..)
            | Said::Failed(number, _)
            | Said::Data(number, _)
            | Said::Credit(number, _)
            | Said::Ended(number, _)
            | Said::Refused(number, _)
            | Said::Closed(number) => number,
        };
        let Some(slot) = self.channels.get_mut(number as usize) else { return Ok(None) };
        let Some(channel) = slot else { return Ok(None) };
        match said {
            Said::Opened(_, own, other) => channel.opened = Some(Ok((own, other))),
            Said::Failed(_, errno) => channel.opened = Some(Err(errno)),
            Said::Data(_, data) => channel.put(data)?,
            Said::Credit(_, count) => channel.allow(count)?,
            Said::Ended(_, errno) => {
                if let Flow::Stream(_, receiving) = &mut channel.flow {
                    receiving.end(errno);
                }
            }
            Said::Refused(_, errno) => channel.refuse(errno),
            Said::Closed(_) => {
                if channel.closing == Closing::Told {
                    *slot = None;
                    self.free.push(number);
                }
                return Ok(None);
            }
            Said::Plain(_) => {}
        }
        match said {
            Said::Credit(..) | Said::Refused(..) => wake.extend(channel.writer.take()),
            _ => wake.extend(channel.reader.take()),
        }
        Ok(None)
    }

    /// The agent is gone: who is to learn it.
    pub(super) fn fail(&mut self) -> Vec<Waker> {
        self.gone = true;
        let channels = self.channels.iter_mut().flatten();
        channels.flat_map(|channel| [channel.reader.take(), channel.writer.take()]).flatten().collect()
    }
}
