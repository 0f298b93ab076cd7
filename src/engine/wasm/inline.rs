//! Guests' runs that are polled by whoever waits for what they give: to hand a request over to a task of its own, and its
//! response back, costs more than most requests compute.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use wasmtime_wasi_http::{Error, WasiBody};

/// Where guests run, and which do.
#[derive(Debug, Clone)]
pub struct Guests {
    /// Their threads.
    pub threads: Handle,
    /// Those that run.
    pub running: TaskTracker,
}

impl Guests {
    /// On these threads; nothing runs.
    pub fn new(threads: Handle) -> Self {
        Self { threads, running: TaskTracker::new() }
    }

    /// A run that its caller polls.
    pub fn inline<T: Send + 'static>(&self, run: impl Future<Output = T> + Send + 'static) -> Inline<T> {
        Inline { state: State::Running(Box::pin(run)), guests: self.clone(), _counted: self.running.token() }
    }
}

/// A guest's run. What is left of it when this is dropped goes on as a task: whoever asked may be gone, or have what it
/// waited for, and the guest is run to its end.
pub struct Inline<T: Send + 'static> {
    state: State<T>,
    guests: Guests,
    _counted: TaskTrackerToken,
}

enum State<T> {
    Running(Pin<Box<dyn Future<Output = T> + Send>>),
    Ended(T),
    Told,
}

impl<T: Send + 'static> Inline<T> {
    /// Runs it until what it was asked for is there; absent when it ended without.
    pub async fn until<W: Future>(&mut self, wanted: W) -> Option<W::Output> {
        let mut wanted = pin!(wanted);
        poll_fn(|cx| {
            let running = self.go_on(cx);
            match wanted.as_mut().poll(cx) {
                Poll::Ready(there) => Poll::Ready(Some(there)),
                Poll::Pending if running => Poll::Pending,
                Poll::Pending => Poll::Ready(None),
            }
        })
        .await
    }

    /// Runs it to its end.
    pub async fn end(mut self) -> T {
        poll_fn(|cx| {
            if self.go_on(cx) {
                return Poll::Pending;
            }
            match std::mem::replace(&mut self.state, State::Told) {
                State::Ended(outcome) => Poll::Ready(outcome),
                State::Running(_) | State::Told => unreachable!("it ended, and this is told once"),
            }
        })
        .await
    }

    /// Whether it goes on.
    fn go_on(&mut self, cx: &mut Context<'_>) -> bool {
        if let State::Running(run) = &mut self.state
            && let Poll::Ready(outcome) = run.as_mut().poll(cx)
        {
            self.state = State::Ended(outcome);
        }
        matches!(self.state, State::Running(_))
    }
}

impl<T: Send + 'static> Drop for Inline<T> {
    fn drop(&mut self) {
        if let State::Running(run) = std::mem::replace(&mut self.state, State::Told) {
            self.guests.running.spawn_on(run, &self.guests.threads);
        }
    }
}

/// The body of a response, with the run that writes it: the guest goes on when more of it is asked for, so that what it
/// writes without waiting for anybody leaves in one piece. When the run fails, so does the body: its end would pass for the
/// whole of it.
pub struct Streamed<T: Send + 'static> {
    body: WasiBody,
    failed: Arc<AtomicBool>,
    /// Absent once it ended, or waits for something else: it must not wait for a client as well.
    run: Option<Inline<T>>,
}

impl<T: Send + 'static> Streamed<T> {
    /// A body that this run writes. Before a run that failed lets go of the body it sets `failed`.
    pub fn new(body: WasiBody, run: Inline<T>, failed: Arc<AtomicBool>) -> Self {
        Self { body, failed, run: Some(run) }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) && self.failed.load(Ordering::Acquire) {
            return Poll::Ready(Some(Err(Error::HttpResponseIncomplete)));
        }
        frame
    }
}

impl<T: Send + Unpin + 'static> Body for Streamed<T> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = this.poll_body(cx) {
            return Poll::Ready(frame);
        }
        let Some(run) = &mut this.run else { return Poll::Pending };
        run.go_on(cx);
        let frame = this.poll_body(cx);
        if frame.is_pending() {
            this.run = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_is_left_goes_on_when_nobody_waits() {
        let guests = Guests::new(Handle::current());
        let (tell, told) = oneshot::channel();
        let (done, end) = oneshot::channel();
        let mut run = guests.inline(async move {
            let _ = tell.send("early");
            tokio::time::sleep(Duration::from_millis(5)).await;
            let _ = done.send("late");
        });
        assert_eq!(run.until(told).await, Some(Ok("early")));
        assert_eq!(guests.running.len(), 1);
        drop(run);
        assert_eq!(end.await, Ok("late"));
        guests.running.close();
        guests.running.wait().await;
    }

    #[tokio::test]
    async fn a_run_that_ends_without_what_was_wanted_says_how() {
        let guests = Guests::new(Handle::current());
        let mut run = guests.inline(async {
            tokio::task::yield_now().await;
            "failed"
        });
        assert_eq!(run.until(std::future::pending::<()>()).await, None);
        assert_eq!(run.end().await, "failed");
        assert!(guests.running.is_empty());
    }
}
