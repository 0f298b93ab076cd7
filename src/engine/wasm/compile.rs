//! From a module on disk to code that runs: engine profiles, compilation, and the cache of what was compiled.
//!
//! A profile is one Wasmtime engine. They are built when first needed, because each costs start-up time. All of
//! them interrupt guests by epochs, which a single ticker thread advances while anything was compiled.

use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use sha2::{Digest, Sha256};
use thiserror::Error;
use wasmtime::component::Component;
use wasmtime::{
    Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, Module, PoolingAllocationConfig,
    WasmBacktraceDetails,
};

use super::cache::Cache;
use super::limits;
use crate::image::store::digest;

/// Changes whenever the settings below do in a way Wasmtime's own compatibility hash does not cover.
const FORMAT: u32 = 3;

/// Modules whose code stays in memory although nothing may run of it any more.
const LATEST: usize = 16;

/// How long a guest computes before others get their turn.
pub const TICK: Duration = Duration::from_millis(10);

/// Requests in flight of all services together: the size of the pool their instances come from.
const POOL: u32 = 1024;

/// Bytes of an instance's memory that are put back by hand when its request ends, where the kernel tells which pages were
/// written (Linux 6.7): giving them back to the kernel costs a fault for each at the next request. More than that is given back.
const KEPT: usize = 1 << 20;

/// What an engine is tuned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Programs: started once, run long.
    Program,
    /// HTTP components of `wasi:http@0.2`: instances come from a pool.
    Serve,
    /// WASI 0.3, which needs the component model's concurrency.
    Concurrent,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Serve => "serve",
            Self::Concurrent => "concurrent",
        }
    }

    fn config(self, metering: Metering) -> Config {
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .consume_fuel(metering == Metering::Fuel)
            .max_wasm_stack(limits::STACK)
            .async_stack_size(limits::TASK_STACK)
            .concurrency_support(self == Self::Concurrent)
            .wasm_backtrace_details(WasmBacktraceDetails::Enable)
            // Nothing but Wasmtime itself unwinds guest code.
            .native_unwind_info(false);
        // A second pool would take as many terabytes of addresses again; counting fuel costs more than the pool saves.
        if self == Self::Serve && metering == Metering::Off {
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
        }
        config
    }
}

/// Whether instructions are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metering {
    /// They are not.
    Off,
    /// For `x-wasm.fuel`: the code is another.
    Fuel,
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(POOL)
        .total_core_instances(POOL * 4)
        .total_memories(POOL * 2)
        .total_tables(POOL * 4)
        .total_stacks(POOL)
        // Components made by language toolchains of interpreters are large; these are ceilings, not allocations.
        .max_core_instances_per_component(100)
        .max_memories_per_component(20)
        .max_tables_per_component(100)
        .max_component_instance_size(16 << 20)
        .max_core_instance_size(16 << 20)
        .table_elements(100_000);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes).linear_memory_keep_resident(KEPT).table_keep_resident(KEPT);
    }
    pool
}

/// Code ready to be instantiated.
#[derive(Clone)]
pub enum Code {
    /// Of a core module.
    Module(Module),
    /// Of a component.
    Component(Component),
}

/// Where a module came from, for a caller that tells people why something took long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The cache had it.
    Cached,
    /// It was compiled now.
    Compiled,
}

/// Why there is no code.
#[derive(Debug, Error)]
pub enum CompileError {
    /// The module's file cannot be read.
    #[error("read `{path}`: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not the one that was looked at.
    #[error("`{0}` changed while it was being started; start it again")]
    Changed(String),
    /// Wasmtime does not take it.
    #[error("{0:#}")]
    Wasmtime(wasmtime::Error),
}

/// Compiles modules and keeps what it compiled. One for each supervisor.
pub struct Compiler {
    cache: Cache,
    engines: Mutex<HashMap<(Profile, Metering), Engine>>,
    ticker: OnceLock<Arc<Ticked>>,
    /// A lock for each key: replicas of a service compile it once.
    busy: Mutex<HashMap<String, Arc<Mutex<()>>>>,
    /// What was asked for last, so that replicas, and services of one module, share its code: the latest at the end.
    latest: Mutex<VecDeque<(String, Code)>>,
}

/// The engines whose epochs advance. The ticker thread ends when the last strong reference is gone.
type Ticked = Mutex<Vec<EngineWeak>>;

impl Compiler {
    /// A compiler that keeps compiled code under `cache`.
    pub fn new(cache: &Path) -> Self {
        Self {
            cache: Cache::new(cache),
            engines: Mutex::default(),
            ticker: OnceLock::new(),
            busy: Mutex::default(),
            latest: Mutex::default(),
        }
    }

    /// The code of a module for a profile: from the cache, or compiled. Blocks; takes milliseconds or seconds.
    pub fn code(
        &self,
        module: &crate::model::Module,
        profile: Profile,
        metering: Metering,
    ) -> Result<(Code, Origin), CompileError> {
        let engine = self.engine(profile, metering)?;
        let is_component = !matches!(module.kind, crate::model::ModuleKind::Core);
        let key = key(&module.digest, profile, metering, &engine);
        let turn = self.busy.lock().expect("no panic while it is held").entry(key.clone()).or_default().clone();
        let _turn = turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(code) = self.latest(&key).or_else(|| self.cached(&key, &engine, is_component)) {
            self.remember(key, code.clone());
            return Ok((code, Origin::Cached));
        }
        let making = self.cache.make(&key);
        // Another process may have made it while this one waited.
        if let Some(code) = self.cached(&key, &engine, is_component) {
            return Ok((code, Origin::Cached));
        }
        let shown = module.path.display().to_string();
        let bytes = std::fs::read(&module.path).map_err(|source| CompileError::Read { path: shown.clone(), source })?;
        if digest(&bytes) != module.digest {
            return Err(CompileError::Changed(shown));
        }
        let (code, serialized) = if is_component {
            let component = Component::from_binary(&engine, &bytes).map_err(CompileError::Wasmtime)?;
            let serialized = component.serialize();
            (Code::Component(component), serialized)
        } else {
            let module = Module::from_binary(&engine, &bytes).map_err(CompileError::Wasmtime)?;
            let serialized = module.serialize();
            (Code::Module(module), serialized)
        };
        // A cache that cannot be written costs time at the next start, not this one.
        let _ = serialized.map(|serialized| making.store(&serialized));
        self.remember(key, code.clone());
        Ok((code, Origin::Compiled))
    }

    fn latest(&self, key: &str) -> Option<Code> {
        let latest = self.latest.lock().expect("no panic while it is held");
        latest.iter().find(|(other, _)| other == key).map(|(_, code)| code.clone())
    }

    fn remember(&self, key: String, code: Code) {
        let mut latest = self.latest.lock().expect("no panic while it is held");
        latest.retain(|(other, _)| *other != key);
        latest.push_back((key, code));
        if latest.len() > LATEST {
            latest.pop_front();
        }
    }

    fn cached(&self, key: &str, engine: &Engine, is_component: bool) -> Option<Code> {
        let entry = self.cache.find(key)?;
        match load(engine, &entry.path(), is_component) {
            Ok(code) => {
                self.cache.hold(key, entry);
                Some(code)
            }
            Err(_) => {
                // Of another version or machine, whatever its name says.
                self.cache.discard(key);
                None
            }
        }
    }

    /// The engine of a profile.
    pub fn engine(&self, profile: Profile, metering: Metering) -> Result<Engine, CompileError> {
        let mut engines = self.engines.lock().expect("no panic while it is held");
        if let Some(engine) = engines.get(&(profile, metering)) {
            return Ok(engine.clone());
        }
        let engine = Engine::new(&profile.config(metering)).map_err(CompileError::Wasmtime)?;
        self.tick(&engine);
        engines.insert((profile, metering), engine.clone());
        Ok(engine)
    }

    /// Lets the epochs of an engine advance.
    fn tick(&self, engine: &Engine) {
        let ticked = self.ticker.get_or_init(|| {
            let ticked = Arc::new(Ticked::default());
            let weak = Arc::downgrade(&ticked);
            std::thread::Builder::new()
                .name("wasm epochs".into())
                .spawn(move || advance(&weak))
                .expect("a thread can be started");
            ticked
        });
        ticked.lock().expect("no panic while it is held").push(engine.weak());
    }
}

fn advance(ticked: &Weak<Ticked>) {
    while let Some(ticked) = ticked.upgrade() {
        for engine in ticked.lock().expect("no panic while it is held").iter() {
            if let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
            }
        }
        drop(ticked);
        std::thread::sleep(TICK);
    }
}

/// The cache key: the module's content, everything of Wasmtime that changes code, and our own settings.
fn key(digest: &str, profile: Profile, metering: Metering, engine: &Engine) -> String {
    let mut hasher = Feed(Sha256::new());
    FORMAT.hash(&mut hasher);
    digest.hash(&mut hasher);
    profile.name().hash(&mut hasher);
    (metering == Metering::Fuel).hash(&mut hasher);
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:x}", hasher.0.finalize())
}

/// Feeds what `Hash` implementations write into a digest.
struct Feed(Sha256);

impl Hasher for Feed {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        unreachable!("the digest is taken from the field")
    }
}

/// Maps compiled code from an entry of the cache.
#[expect(unsafe_code, reason = "compiled code is mapped, not compiled again")]
fn load(engine: &Engine, path: &Path, is_component: bool) -> wasmtime::Result<Code> {
    // SAFETY: the bytes must be what an engine serialized. `path` names an open descriptor of a file that `Cache::find` checked: it
    // belongs to this user, lies in a folder only this user may enter, nobody else may write it, and its checksum is
    // right; so this program wrote it. Wasmtime itself refuses code of another version, machine or configuration.
    unsafe {
        Ok(if is_component {
            Code::Component(Component::deserialize_file(engine, path)?)
        } else {
            Code::Module(Module::deserialize_file(engine, path)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::image::store::Store;

    struct Bench {
        folder: tempfile::TempDir,
        module: crate::model::Module,
    }

    impl Bench {
        fn new(text: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("app.wat");
            fs::write(&path, text).unwrap();
            let module = Store::new(folder.path()).local("app.wat", &path, None).unwrap();
            Self { folder, module }
        }

        /// Compiles with a compiler of its own, as another process would.
        fn code(&self, profile: Profile) -> Origin {
            Compiler::new(self.folder.path()).code(&self.module, profile, Metering::Off).unwrap().1
        }

        fn entries(&self) -> Vec<std::path::PathBuf> {
            fs::read_dir(self.folder.path().join("code")).unwrap().map(|entry| entry.unwrap().path()).collect()
        }
    }

    const START: &str = r#"(module (func (export "_start")))"#;
    const COMPONENT: &str = r#"(component (instance $i) (export "wasi:cli/run@0.2.0" (instance $i)))"#;

    #[test]
    fn code_is_compiled_once() {
        for text in [START, COMPONENT] {
            let bench = Bench::new(text);
            assert_eq!(bench.code(Profile::Program), Origin::Compiled);
            assert_eq!(bench.code(Profile::Program), Origin::Cached);
            assert_eq!(bench.entries().len(), 1);
        }
    }

    #[test]
    fn profiles_do_not_share_code() {
        let bench = Bench::new(COMPONENT);
        for profile in [Profile::Program, Profile::Serve, Profile::Concurrent] {
            assert_eq!(bench.code(profile), Origin::Compiled);
            assert_eq!(bench.code(profile), Origin::Cached);
        }
    }

    #[test]
    fn a_damaged_entry_is_compiled_again() {
        let bench = Bench::new(START);
        bench.code(Profile::Program);
        let entry = &bench.entries()[0];
        let mut bytes = fs::read(entry).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(entry, bytes).unwrap();
        assert_eq!(bench.code(Profile::Program), Origin::Compiled);
        assert_eq!(bench.code(Profile::Program), Origin::Cached);
    }

    #[test]
    fn an_entry_of_another_module_kind_is_compiled_again() {
        let bench = Bench::new(START);
        bench.code(Profile::Program);
        let name = bench.entries()[0].file_stem().unwrap().to_str().unwrap().to_owned();
        // A well-formed entry with a right digest that holds something else.
        Cache::new(bench.folder.path()).make(&name).store(b"\x7fELF but not ours").unwrap();
        assert_eq!(bench.code(Profile::Program), Origin::Compiled);
    }

    #[test]
    fn a_file_that_changed_is_not_run() {
        let bench = Bench::new(START);
        fs::write(&bench.module.path, b"\0asm\x01\0\0\0").unwrap();
        let Err(error) = Compiler::new(bench.folder.path()).code(&bench.module, Profile::Program, Metering::Off) else {
            panic!("other bytes were compiled");
        };
        assert!(matches!(error, CompileError::Changed(_)), "{error}");
    }
}
