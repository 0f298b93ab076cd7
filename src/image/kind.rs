//! Which service is Wasm, as far as its declaration says (DESIGN, "Which service is Wasm").
//! The image's own architecture can make a service Wasm as well; that is seen once the image is there.

use crate::model::Service;

/// Runtimes of Docker's deprecated Wasm workloads: `io.containerd.<name>.vN`.
const SHIMS: &[&str] = &["wasmedge", "wasmtime", "wasmer", "wamr", "spin", "slight", "wws", "lunatic"];

/// What in a service's declaration says that it is Wasm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WasmSign {
    /// `x-wasm`.
    Extension,
    /// `image` is a path.
    Path,
    /// `runtime`.
    Runtime,
    /// `platform`, or an entry of `build.platforms`.
    Platform,
}

/// The first sign in a service's declaration that it is Wasm.
pub fn wasm_sign(service: &Service) -> Option<WasmSign> {
    if service.wasm.is_some() {
        Some(WasmSign::Extension)
    } else if service.image.as_deref().is_some_and(is_path) {
        Some(WasmSign::Path)
    } else if service.runtime.as_deref().is_some_and(is_wasm_runtime) {
        Some(WasmSign::Runtime)
    } else if service
        .platform
        .iter()
        .chain(service.build.iter().flat_map(|build| &build.platforms))
        .any(|platform| is_wasm_platform(platform))
    {
        Some(WasmSign::Platform)
    } else {
        None
    }
}

/// Whether `image:` is a path (of a module, a saved image, a layout folder) rather than a reference, none of which begins so.
pub fn is_path(image: &str) -> bool {
    image.starts_with('/') || image.starts_with("./") || image.starts_with("../")
}

/// Whether `runtime:` names one of the Wasm shims.
pub fn is_wasm_runtime(runtime: &str) -> bool {
    runtime.strip_prefix("io.containerd.").is_some_and(|rest| {
        let (shim, version) = rest.rsplit_once('.').unwrap_or((rest, ""));
        SHIMS.contains(&shim)
            && version.strip_prefix('v').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// Whether a platform (`os/architecture[/variant]`) is WebAssembly; the swapped `wasm32/wasi` occurs in the wild.
pub fn is_wasm_platform(platform: &str) -> bool {
    platform
        .to_ascii_lowercase()
        .split('/')
        .any(|part| matches!(part, "wasi" | "wasip1" | "wasip2" | "wasip3" | "wasm" | "wasm32" | "wasm64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_in_every_spelling_seen() {
        for platform in ["wasi/wasm", "wasi/wasm32", "wasip1/wasm", "wasip2/wasm", "wasm32/wasi", "wasm", "WASI/WASM"] {
            assert!(is_wasm_platform(platform), "{platform}");
        }
        for platform in ["linux/amd64", "linux/arm64/v8", "windows/amd64"] {
            assert!(!is_wasm_platform(platform), "{platform}");
        }
    }

    #[test]
    fn runtimes_of_the_shims() {
        assert!(is_wasm_runtime("io.containerd.wasmedge.v1"));
        assert!(is_wasm_runtime("io.containerd.spin.v2"));
        assert!(!is_wasm_runtime("io.containerd.runc.v2"));
        assert!(!is_wasm_runtime("runsc"));
    }

    #[test]
    fn only_what_begins_like_a_path_is_one() {
        for path in ["./gateway.wasm", "/srv/gateway.wat", "../saved.tar", "./layout"] {
            assert!(is_path(path), "{path}");
        }
        for reference in ["gateway.wasm", "example.com/app:1", "app"] {
            assert!(!is_path(reference), "{reference}");
        }
    }
}
