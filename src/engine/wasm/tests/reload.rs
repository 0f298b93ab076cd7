//! New modules for guests that run.

use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;

use super::http::component;
use super::programs::program;
use super::*;

/// What a component does first that answers with 211, 212, … instead of 201, 202, ….
const TEN: &str = "(if (i32.lt_u (global.get $seen) (i32.const 10)) (then (global.set $seen (i32.const 10))))";

/// Counts for a good while. In one line: the component's text has its place in a comment, too.
const SLOW: &str = "(loop $on (global.set $seen (i32.add (global.get $seen) (i32.const 1))) \
    (br_if $on (i32.lt_u (global.get $seen) (i32.const 400000000)))) (global.set $seen (i32.const 0))";

impl Bench {
    /// The same service with another module.
    fn rebuilt(&self, spec: &InstanceSpec, text: &str) -> Arc<InstanceSpec> {
        let other = self.spec(&format!("{}-rebuilt", spec.name.service), text);
        let labels = [(IMAGE.to_owned(), "new".to_owned())];
        let labels = spec.labels.clone().into_iter().chain(labels).collect();
        Arc::new(InstanceSpec { resolved: other.resolved, wasm_hash: Some("new".into()), labels, ..spec.clone() })
    }

    async fn connect(&self, spec: &InstanceSpec) -> SendRequest<Empty<bytes::Bytes>> {
        let conn = self.wasm.dial(&spec.name, 8080).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(conn.io)).await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "it ends with the sender")]
        drop(tokio::task::spawn(connection));
        sender
    }

    fn observed(&self) -> Vec<Existing> {
        self.wasm.lock().values().map(Instance::observed).collect()
    }
}

const IMAGE: &str = "com.docker.compose.image";

async fn status(sender: &mut SendRequest<Empty<bytes::Bytes>>) -> u16 {
    let request = ::http::Request::get("/").header("host", "web").body(Empty::new()).unwrap();
    sender.ready().await.expect("the connection goes on");
    let response = sender.send_request(request).await.expect("an answer");
    let status = response.status().as_u16();
    response.into_body().collect().await.unwrap();
    status
}

#[tokio::test]
async fn a_connection_goes_on_and_its_next_request_is_answered_by_the_new_component() {
    let bench = Bench::new();
    let spec = bench.spec("web", &component(""));
    bench.create(&spec).await.unwrap();
    let mut started = bench.start(&spec).await;
    let mut connection = bench.connect(&spec).await;
    assert_eq!(status(&mut connection).await, 201);
    started.handle.replace(bench.rebuilt(&spec, &component(TEN))).await.unwrap();
    assert_eq!(status(&mut connection).await, 211);
    assert_eq!(bench.get(&spec, 8080).await.0.as_u16(), 211);

    let observed = bench.observed();
    assert_eq!((observed[0].wasm_hash.as_deref(), observed[0].image_id.as_deref()), (Some("new"), Some("new")));
    drop(connection);
    started.handle.stop(None).await.unwrap();
    assert_eq!(started.exit().await.code, 143, "it was one run all the while");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_answered_by_the_component_that_began_it() {
    let bench = Bench::new();
    let spec = bench.spec("web", &component(SLOW));
    bench.create(&spec).await.unwrap();
    let started = bench.start(&spec).await;
    let mut old = bench.connect(&spec).await;
    let (old, new) = tokio::join!(status(&mut old), async {
        while bench.wasm.memory(&spec.name).unwrap_or_default() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        started.handle.replace(bench.rebuilt(&spec, &component(TEN))).await.unwrap();
        let in_flight = bench.wasm.memory(&spec.name).unwrap_or_default() > 0;
        assert!(in_flight, "the old one is still at it");
        status(&mut bench.connect(&spec).await).await
    });
    assert_eq!((old, new), (201, 211));
    started.handle.stop(None).await.unwrap();
}

#[tokio::test]
async fn kept_instances_give_way() {
    let bench = Bench::new();
    let mut spec = bench.spec("web", &component(""));
    with_service(&mut spec, |service| {
        service.wasm = Some(WasmOptions { http_reuse: true, ..WasmOptions::default() });
    });
    bench.create(&spec).await.unwrap();
    let started = bench.start(&spec).await;
    let mut connection = bench.connect(&spec).await;
    let mut statuses = Vec::new();
    for next in [None, Some(TEN), Some("")] {
        if let Some(text) = next {
            started.handle.replace(bench.rebuilt(&spec, &component(text))).await.unwrap();
        }
        for _ in 0..2 {
            statuses.push(status(&mut connection).await);
        }
    }
    assert_eq!(statuses, [201, 202, 211, 212, 201, 202]);
    let idle = async {
        // One instance of the last module is kept; those before it are gone.
        while bench.wasm.memory(&spec.name).unwrap_or_default() > 64 * 1024 + 1024 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), idle).await.expect("kept instances of old modules end at once");
    started.handle.stop(None).await.unwrap();
}

#[tokio::test]
async fn a_module_that_does_not_compile_or_link_changes_nothing_and_the_log_says_why() {
    let bench = Bench::new();
    let spec = bench.spec("web", &component(""));
    bench.create(&spec).await.unwrap();
    let mut started = bench.start(&spec).await;
    let foreign = r#"(component (import "some:where/else" (func)) (instance $i) (export "wasi:http/incoming-handler@0.2.0" (instance $i)))"#;
    for (text, why) in [("no module", "magic"), (foreign, "some:where/else")] {
        let mut broken = (*bench.rebuilt(&spec, &component(TEN))).clone();
        let binary = crate::image::module::to_binary(text.as_bytes());
        let bytes = binary.map_or_else(|_| text.as_bytes().to_vec(), |binary| binary.to_vec());
        let Resolved::Wasm(module) = &mut broken.resolved else { unreachable!() };
        module.path = bench.folder.path().join("broken.wasm");
        module.digest = crate::image::store::digest(&bytes);
        std::fs::write(&module.path, bytes).unwrap();
        let error = started.handle.replace(Arc::new(broken)).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(bench.get(&spec, 8080).await.0.as_u16(), 201);
    }
    assert_eq!(bench.observed()[0].wasm_hash.as_deref(), Some("wasm"));
    started.handle.stop(None).await.unwrap();
    started.exit().await;
    let written = started.written();
    let log = texts(&written).join("\n");
    assert!(
        log.contains("wcompose: the new module was not taken, the old one goes on: compile the module of"),
        "{log}"
    );
    assert!(log.contains("some:where/else"), "{log}");
}

#[tokio::test]
async fn a_program_makes_way_for_the_new_one_in_the_same_run() {
    let bench = Bench::new();
    let spec = bench.spec("job", &program("(loop (br 0))"));
    bench.create(&spec).await.unwrap();
    let mut started = bench.start(&spec).await;
    let endless = program("(call $print (i32.const 0) (i32.const 8)) (loop (br 0))");
    started.handle.replace(bench.rebuilt(&spec, &endless)).await.unwrap();
    started.handle.replace(bench.rebuilt(&spec, &program("(call $exit (i32.const 7))"))).await.unwrap();
    let exit = started.exit().await;
    assert_eq!((exit.code, exit.reason), (7, None), "the ends in between are nobody's business");
}

#[tokio::test]
async fn a_service_makes_way_for_a_program_and_back() {
    let bench = Bench::new();
    let spec = bench.spec("web", &component(""));
    bench.create(&spec).await.unwrap();
    let started = bench.start(&spec).await;
    started.handle.replace(bench.rebuilt(&spec, &program("(loop (br 0))"))).await.unwrap();
    assert!(bench.wasm.dial(&spec.name, 8080).await.is_err(), "nothing listens");
    started.handle.replace(bench.rebuilt(&spec, &component(TEN))).await.unwrap();
    assert_eq!(bench.get(&spec, 8080).await.0.as_u16(), 211);
    started.handle.stop(None).await.unwrap();
}

#[tokio::test]
async fn what_ended_starts_with_the_module_it_was_to_take() {
    let bench = Bench::new();
    let spec = bench.spec("job", &program("(call $exit (i32.const 3))"));
    bench.create(&spec).await.unwrap();
    let mut started = bench.start(&spec).await;
    assert_eq!(started.exit().await.code, 3);
    let rebuilt = bench.rebuilt(&spec, &program("(call $exit (i32.const 7))"));
    assert!(started.handle.replace(rebuilt.clone()).await.is_err(), "there is nothing to take it");
    let mut started = bench.start(&rebuilt).await;
    assert_eq!(started.exit().await.code, 7);
}
