//! Guests' own threads: lower in priority than the host's, so that a guest that computes does not starve who serves sockets.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;

/// Added to the nice value of guests' threads.
const NICE: i32 = 5;

/// The runtime guests run on, started when the first guest is.
#[derive(Debug)]
pub struct Threads {
    runtime: OnceLock<Runtime>,
    busy: Arc<Semaphore>,
}

impl Default for Threads {
    fn default() -> Self {
        Self { runtime: OnceLock::new(), busy: Arc::new(Semaphore::new(cores())) }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).max(2)
}

impl Threads {
    /// The turns of guests that compute without pause: half of the threads.
    pub fn busy(&self) -> Arc<Semaphore> {
        self.busy.clone()
    }

    /// Where guests are spawned.
    pub fn handle(&self) -> io::Result<Handle> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime.handle().clone());
        }
        let runtime = Builder::new_multi_thread()
            // Twice the cores: guests that compute without end then leave threads for those that wait for sockets.
            .worker_threads(cores() * 2)
            .thread_name("wasm guest")
            .on_thread_start(|| {
                if let Ok(nice) = rustix::process::getpriority_process(None) {
                    // Linux keeps a nice value for each thread; where that is not permitted, guests are equals.
                    let _ = rustix::process::setpriority_process(None, nice + NICE);
                }
            })
            // A guest yields every few milliseconds; sockets are looked after at each turn, not at every 61st.
            .event_interval(1)
            .global_queue_interval(1)
            .enable_all()
            .build()?;
        if let Err(spare) = self.runtime.set(runtime) {
            spare.shutdown_background();
        }
        Ok(self.runtime.get().expect("it was set").handle().clone())
    }
}

/// A runtime may not be dropped where waiting is forbidden; its guests are gone by then.
impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
