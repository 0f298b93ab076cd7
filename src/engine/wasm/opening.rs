//! Opening files, counted: stands in for Wasmtime's `path_open` and `descriptor.open-at`, which open without end, and hands on to
//! them what the instance's limit allows.

use wasmtime::component::{self, Accessor, Resource, ResourceTable};
use wasmtime::{AsContextMut, Caller, Extern, StoreContextMut};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self, WasiSnapshotPreview1 as _};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, ErrorCode, Host as _, HostDescriptor, OpenFlags, PathFlags,
};
use wasmtime_wasi::p3::bindings::filesystem::types::{self as p3, HostDescriptorWithStore as _};
use wiggle::GuestMemory;

use super::host::{CoreState, State};

/// Preview 1's number for too many open files.
const MFILE: i32 = 33;

/// What `open-at` is called with.
type OpenAt = (Resource<Descriptor>, PathFlags, String, OpenFlags, DescriptorFlags);

/// Puts ours in the place of Wasmtime's for components.
pub fn add_to_component_linker(linker: &mut component::Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance("wasi:filesystem/types@0.2.12")?;
    types.func_wrap_async(
        "[method]descriptor.open-at",
        |mut store: StoreContextMut<'_, State>, (folder, follow, path, open, flags): OpenAt| {
            Box::new(async move {
                let state = store.data_mut();
                if !state.may_open() {
                    // The nearest there is: this interface has no word for too many files.
                    return Ok((Err(ErrorCode::InsufficientMemory),));
                }
                let mut files = state.filesystem();
                Ok((match files.open_at(folder, follow, path, open, flags).await {
                    Ok(opened) => Ok(opened),
                    Err(error) => Err(files.convert_error_code(error)?),
                },))
            })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// What `open-at` of 0.3 is called with.
type AsyncOpenAt = (Resource<Descriptor>, p3::PathFlags, String, p3::OpenFlags, p3::DescriptorFlags);

/// The same for components of WASI 0.3.
pub fn add_to_async_component_linker(linker: &mut component::Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance("wasi:filesystem/types@0.3.0")?;
    types.func_wrap_concurrent(
        "[method]descriptor.open-at",
        |accessor: &Accessor<State>, (folder, follow, path, open, flags): AsyncOpenAt| {
            Box::pin(async move {
                if !accessor.with(|mut access| access.get().may_open()) {
                    return Ok((Err(p3::ErrorCode::InsufficientMemory),));
                }
                let files = accessor.with_getter::<WasiFilesystem>(State::filesystem);
                let opened = WasiFilesystem::open_at(&files, folder, follow, path, open, flags).await;
                Ok((match opened {
                    Ok(opened) => Ok(opened),
                    Err(error) => Err(error.downcast()?),
                },))
            })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// What `path_open` is called with: folder, lookup flags, path and its length, flags, rights, inherited rights, more flags, where to.
type PathOpen = (i32, i32, i32, i32, i32, i64, i64, i32, i32);

/// The same for core modules.
pub fn add_to_core_linker(linker: &mut wasmtime::Linker<CoreState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.func_wrap_async(
        "wasi_snapshot_preview1",
        "path_open",
        |mut caller: Caller<'_, CoreState>,
         (folder, follow, at, length, open, rights, inherited, flags, to): PathOpen| {
            Box::new(async move {
                if !caller.data_mut().may_open() {
                    return Ok(MFILE);
                }
                let fuel = caller.as_context_mut().hostcall_fuel();
                let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
                    return Err(wasmtime::format_err!("the module exports no memory"));
                };
                let (bytes, state) = memory.data_and_store_mut(&mut caller);
                let (wasi, mut bytes) = (state.wasi(), GuestMemory::Unshared(bytes));
                wasi.set_hostcall_fuel(fuel);
                wasi_snapshot_preview1::path_open(
                    wasi, &mut bytes, folder, follow, at, length, open, rights, inherited, flags, to,
                )
                .await
            })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The table of a core module's handles.
pub fn table(wasi: &mut WasiP1Ctx) -> &mut ResourceTable {
    wasi.ctx().table
}
