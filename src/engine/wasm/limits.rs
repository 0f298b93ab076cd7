//! What one instance may take of the host, what it has taken, and what is said when it wants more.
//!
//! The file's own words count: `mem_limit`, `ulimits.nofile`, `cpus`, `x-wasm.fuel`. What it does not say has a default here, and
//! nowhere else: a container without limits can only hurt the machine, but all guests of a project live in one process, so one
//! without any would end the others. A limit that was hit is told once, in the log of the service.
//!
//! Threads are not here: guests have none. Shared memories are off in every engine, so `pids_limit` has nothing to count.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::filesystem::Descriptor;

use super::output::Output;
use crate::engine::Stream;
use crate::model::Service;

/// Of a table, in elements: one holds every function that is called through a pointer, and the largest programs have some
/// ten thousand. They cost 16 bytes each of the guest's memory as well.
const TABLE: usize = 1_000_000;
/// Bytes of host memory behind one element of a table: a pointer and a tag.
const ELEMENT: usize = 16;
/// Wasm instances of one store. A component of an interpreter has about thirty; plugged components add up.
const INSTANCES: usize = 1000;
/// Memories of one store: one for each of its instances that has any.
const MEMORIES: usize = 200;
/// Stack of Wasm calls, in bytes. A Linux thread has 8 MiB, but there locals live on it that Wasm toolchains keep in the
/// memory; twice Wasmtime's default, since interpreters recurse.
pub const STACK: usize = 1 << 20;
/// The stack a guest's task runs on: its own part, and as much for the host functions it calls.
pub const TASK_STACK: usize = 2 * STACK;
/// Sockets of an instance at once, accepted ones included: more than one server of one thread looks after.
const SOCKETS: usize = 4096;
/// Files and folders a guest has open at once: what a Linux process may by its soft limit.
const FILES: usize = 1024;
/// Handles of any kind in one store (files, sockets, streams, timers, bodies).
const HANDLES: usize = 64 * 1024;

/// What an instance may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Bytes of linear memory and tables, of everything that runs for the instance together.
    pub memory: usize,
    /// Sockets open at once.
    pub sockets: usize,
    /// Files and folders open at once.
    pub files: usize,
    /// Cores' worth of time.
    pub cpus: Option<f64>,
    /// Wasm instructions of one run: of a program, or of one request.
    pub fuel: Option<u64>,
}

impl Limits {
    /// By the service's own words, then the defaults.
    pub fn of(service: &Service) -> Self {
        let machine = Machine::this();
        let descriptors = descriptors(service);
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            memory: service.memory.filter(|bytes| bytes.0 > 0).map_or(machine.memory / 2, |bytes| size(bytes.0)),
            // One guest leaves most of the process's descriptors to the others.
            sockets: descriptors.unwrap_or(SOCKETS.min(machine.descriptors / 4)),
            files: descriptors.unwrap_or(FILES.min(machine.descriptors / 8)),
            cpus: service.cpus.filter(|cpus| cpus.is_finite() && *cpus > 0.0),
            fuel: service.wasm.as_ref().and_then(|options| options.fuel),
        }
    }
}

/// `ulimits.nofile`: a number, or its soft part.
fn descriptors(service: &Service) -> Option<usize> {
    let declared = service.document.get("ulimits")?.get("nofile")?;
    let soft = declared.as_i64().or_else(|| declared.get("soft")?.as_i64())?;
    // As for containers, -1 is no limit.
    Some(usize::try_from(soft).unwrap_or(usize::MAX).max(1))
}

/// What this process itself may take.
#[derive(Debug, Clone, Copy)]
struct Machine {
    memory: usize,
    descriptors: usize,
}

impl Machine {
    /// Looked up once; the soft limit of descriptors is raised to the hard one, since a thousand services need as many listeners.
    fn this() -> Self {
        static FOUND: OnceLock<Machine> = OnceLock::new();
        *FOUND.get_or_init(|| Self { memory: memory(), descriptors: raise_descriptors() })
    }
}

fn raise_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let now = if raised.is_ok() { limit.maximum } else { limit.current };
    now.and_then(|now| usize::try_from(now).ok()).unwrap_or(usize::MAX)
}

/// Memory of the machine, or of the control group this process lives in.
fn memory() -> usize {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<usize>().ok();
    let installed = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
    });
    let groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let bounds = groups.into_iter().filter_map(number).chain(installed);
    bounds.min().unwrap_or(4 << 30)
}

/// Something that runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scarce {
    Memory,
    Table,
    Files,
    Cpu,
}

/// What one service instance has taken, shared by everything that runs for it.
#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    output: Output,
    memory: AtomicUsize,
    files: AtomicUsize,
    /// A bit for each [`Scarce`] that was told.
    told: AtomicU8,
}

impl Budget {
    /// Nothing taken yet; what is hit goes to `output`.
    pub fn new(limits: Limits, output: Output) -> Arc<Self> {
        let (memory, files) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { limits, output, memory, files, told: AtomicU8::new(0) })
    }

    /// What it may take.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes of memory in use.
    pub fn used(&self) -> u64 {
        self.memory.load(Ordering::Relaxed) as u64
    }

    /// The phrase for a guest that ended after it asked for more memory than its limit.
    pub fn denial(&self) -> Option<String> {
        self.was_told(Scarce::Memory).then(|| self.phrase(Scarce::Memory))
    }

    /// Tells that the guest is slowed down to its share.
    pub fn throttled(&self) {
        self.tell(Scarce::Cpu);
    }

    fn take(&self, bytes: usize) -> bool {
        let within = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.limits.memory);
        let taken = self.memory.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok();
        if !taken {
            self.tell(Scarce::Memory);
        }
        taken
    }

    fn was_told(&self, scarce: Scarce) -> bool {
        self.told.load(Ordering::Relaxed) & (1 << scarce as u8) != 0
    }

    fn tell(&self, scarce: Scarce) {
        let bit = 1 << scarce as u8;
        if self.told.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.output.line(Stream::Stderr, format!("wcompose: {}", self.phrase(scarce)));
        }
    }

    fn phrase(&self, scarce: Scarce) -> String {
        let limits = &self.limits;
        match scarce {
            Scarce::Memory => {
                format!("it asked for more memory than its limit of {} bytes (`mem_limit`)", limits.memory)
            }
            Scarce::Table => format!("it asked for a table of more than {TABLE} elements"),
            Scarce::Files => {
                format!("it has {} files open, which is its limit (`ulimits: {{ nofile: … }}`)", limits.files)
            }
            Scarce::Cpu => {
                let cpus = limits.cpus.unwrap_or_default();
                format!("it wants more than its share of {cpus} CPUs (`cpus`), and is slowed down to it")
            }
        }
    }
}

/// One store's part of a budget; given back when the store is dropped.
pub struct Share {
    budget: Arc<Budget>,
    memory: usize,
    /// Files counted as open; those closed since the last look count still.
    files: usize,
}

impl Share {
    /// Nothing taken yet.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, memory: 0, files: 0 }
    }

    /// What the instance may take.
    pub fn limits(&self) -> &Limits {
        self.budget.limits()
    }

    /// Whether one more file may be opened by the store of this table, and counts it if so.
    pub fn open_file(&mut self, table: &mut ResourceTable) -> bool {
        let within = |open: usize| open.checked_add(1).filter(|open| *open <= self.budget.limits.files);
        let take = |budget: &Budget| budget.files.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok();
        let mut taken = take(&self.budget);
        if !taken {
            // Closing is not seen: it is time to look what is still open.
            let open = table.iter_mut().filter(|entry| entry.is::<Descriptor>()).count();
            let closed = self.files.saturating_sub(open);
            self.budget.files.fetch_sub(closed, Ordering::Relaxed);
            self.files -= closed;
            taken = take(&self.budget);
        }
        if taken {
            self.files += 1;
        } else {
            self.budget.tell(Scarce::Files);
        }
        taken
    }

    fn grow(&mut self, current: usize, desired: usize, maximum: Option<usize>, size: usize) -> bool {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return false;
        }
        let bytes = desired.saturating_sub(current).saturating_mul(size);
        let granted = self.budget.take(bytes);
        if granted {
            self.memory += bytes;
        }
        granted
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.memory.fetch_sub(self.memory, Ordering::Relaxed);
        self.budget.files.fetch_sub(self.files, Ordering::Relaxed);
    }
}

impl ResourceLimiter for Share {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(current, desired, maximum, 1))
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE {
            if maximum.is_none_or(|maximum| desired <= maximum) {
                self.budget.tell(Scarce::Table);
            }
            return Ok(false);
        }
        Ok(self.grow(current, desired, maximum, ELEMENT))
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn tables(&self) -> usize {
        INSTANCES
    }

    fn memories(&self) -> usize {
        MEMORIES
    }
}

/// A table of handles that a guest cannot fill without end.
pub fn table() -> ResourceTable {
    let mut table = ResourceTable::new();
    bound(&mut table);
    table
}

/// The same for a table that somebody else made.
pub fn bound(table: &mut ResourceTable) {
    table.set_max_capacity(HANDLES);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Bytes, WasmOptions};

    const LIMITS: Limits = Limits { memory: 100, sockets: 1, files: 2, cpus: None, fuel: None };

    #[test]
    fn stores_share_a_budget_and_give_it_back() {
        let budget = Budget::new(LIMITS, Output::new());
        let (mut one, mut two) = (Share::new(budget.clone()), Share::new(budget.clone()));
        assert!(one.memory_growing(0, 60, None).unwrap());
        assert!(!one.memory_growing(60, 1000, Some(500)).unwrap());
        assert_eq!(budget.denial(), None, "the module's own maximum is not the service's");
        assert!(!two.memory_growing(0, 50, None).unwrap());
        assert!(budget.denial().unwrap().contains("100 bytes"));
        drop(one);
        assert!(two.table_growing(0, 5, None).unwrap());
        assert_eq!(budget.used(), 80);
        assert!(!two.table_growing(5, TABLE + 1, None).unwrap());
    }

    #[test]
    fn files_that_were_closed_make_room() {
        let budget = Budget::new(LIMITS, Output::new());
        let (mut share, mut table) = (Share::new(budget.clone()), table());
        let file = || {
            let open = std::fs::File::open("/dev/null").unwrap();
            let mode = wasmtime_wasi::filesystem::OpenMode::READ;
            let file = wasmtime_wasi::filesystem::File::new(open, wasmtime_wasi::FsPerms::ReadOnly, mode, true);
            Descriptor::File(file)
        };
        let mut open = |table: &mut ResourceTable| share.open_file(table).then(|| table.push(file()).unwrap());
        let first = open(&mut table).expect("the first");
        open(&mut table).expect("the second");
        assert!(open(&mut table).is_none(), "the third is too many");
        table.delete(first).unwrap();
        assert!(open(&mut table).is_some());
        drop(share);
        assert_eq!(budget.files.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_file_says_how_much() {
        let mut service = Service::named("one");
        let defaults = Limits::of(&service);
        assert!(defaults.memory > 1 << 20 && defaults.memory < usize::MAX, "{defaults:?}");
        assert_eq!((defaults.cpus, defaults.fuel), (None, None));
        service.memory = Some(Bytes(1 << 20));
        service.cpus = Some(0.5);
        service.wasm = Some(WasmOptions { fuel: Some(7), ..WasmOptions::default() });
        service.document = json!({ "ulimits": { "nofile": { "soft": 32, "hard": 64 } } });
        let limits = Limits::of(&service);
        assert_eq!(limits, Limits { memory: 1 << 20, sockets: 32, files: 32, cpus: Some(0.5), fuel: Some(7) });
        service.document = json!({ "ulimits": { "nofile": 48 } });
        assert_eq!(Limits::of(&service).files, 48);
    }
}
