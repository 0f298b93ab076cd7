use wasmtime::{Config, Engine, Module};

use super::socket_function;
use crate::engine::wasm::linkers::Linkers;
use crate::image::module::to_binary;

fn module(imports: &str) -> Module {
    let engine = Engine::new(Config::new().epoch_interruption(true)).expect("an engine");
    let text = format!(r#"(module {imports} (memory (export "memory") 1) (func (export "_start")))"#);
    let binary = to_binary(text.as_bytes()).expect("the test's text is right");
    Module::new(&engine, binary).expect("it is a module")
}

/// An import of preview 1 with so many numbers as parameters.
fn import(name: &str, parameters: usize) -> String {
    let parameters = " i32".repeat(parameters);
    format!(r#"(import "wasi_snapshot_preview1" "{name}" (func (param{parameters}) (result i32)))"#)
}

#[test]
fn versions_of_a_function_are_told_apart_by_their_parameters() {
    let both = module(&[import("sock_accept", 2), import("sock_accept", 3)].concat());
    let keys: Vec<_> = both.imports().map(|import| socket_function(&import)).collect();
    assert_eq!(keys, [Some("sock_accept/2".to_owned()), Some("sock_accept/3".to_owned())]);
    assert!(Linkers::default().core(&both).is_ok());
}

#[test]
fn the_second_version_has_names_of_its_own_too() {
    for (name, parameters) in [("sock_accept_v2", 3), ("sock_recv_from_v2", 8), ("sock_getpeeraddr_v2", 3)] {
        assert!(Linkers::default().core(&module(&import(name, parameters))).is_ok(), "{name}");
    }
}

#[test]
fn an_import_of_another_type_is_refused_by_name() {
    for (name, parameters) in [("sock_open", 4), ("fd_read", 3), ("sock_accept", 4)] {
        let Err(error) = Linkers::default().core(&module(&import(name, parameters))) else {
            panic!("{name} is linked")
        };
        assert!(error.to_string().contains(&format!("`wasi_snapshot_preview1.{name}`")), "{error}");
    }
}
