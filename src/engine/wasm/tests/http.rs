//! HTTP components: answers, traps, isolation, reuse, the end.

use http_body_util::{BodyExt, Empty};
use hyper::StatusCode;
use hyper_util::rt::TokioIo;

use super::*;

const COMPONENT: &str = include_str!("http.wat");

pub(super) fn component(body: &str) -> String {
    COMPONENT.replace(";;BODY", body)
}

impl Bench {
    /// Asks a service over a connection of its own.
    pub(super) async fn get(&self, spec: &InstanceSpec, port: u16) -> (StatusCode, String) {
        let conn = self.wasm.dial(&spec.name, port).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(conn.io)).await.unwrap();
        let request = ::http::Request::get("/").header("host", "web").body(Empty::<bytes::Bytes>::new()).unwrap();
        let exchange = async {
            let response = sender.send_request(request).await.unwrap();
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            drop(sender);
            (status, String::from_utf8_lossy(&body).into_owned())
        };
        let (answer, _) = tokio::time::timeout(PATIENCE, async { tokio::join!(exchange, connection) })
            .await
            .expect("an answer in time");
        answer
    }
}

#[tokio::test]
async fn requests_do_not_share_state() {
    let bench = Bench::new();
    let spec = bench.spec("web", &component(""));
    bench.create(&spec).await.unwrap();
    let mut started = bench.start(&spec).await;
    for _ in 0..3 {
        assert_eq!(bench.get(&spec, 8080).await, (StatusCode::CREATED, String::new()));
    }
    started.handle.stop(None).await.unwrap();
    assert_eq!(started.exit().await.code, 143);
    assert!(bench.wasm.dial(&spec.name, 8080).await.is_err(), "nothing listens any more");
}

#[tokio::test]
async fn kept_instances_go_on() {
    let bench = Bench::new();
    let mut spec = bench.spec("web", &component(""));
    with_service(&mut spec, |service| {
        service.wasm = Some(WasmOptions { http_reuse: true, http_ports: vec![9000], ..WasmOptions::default() });
    });
    bench.create(&spec).await.unwrap();
    let started = bench.start(&spec).await;
    for status in [201, 202, 203] {
        assert_eq!(bench.get(&spec, 9000).await.0.as_u16(), status);
    }
    started.handle.stop(None).await.unwrap();
}

#[tokio::test]
async fn a_kept_instance_that_gives_no_response_is_asked_again() {
    let bench = Bench::new();
    let body = "(if (i32.eq (global.get $seen) (i32.const 1)) (then (global.set $seen (i32.const 2)) (return)))";
    let mut spec = bench.spec("web", &component(body));
    with_service(&mut spec, |service| {
        service.wasm = Some(WasmOptions { http_reuse: true, ..WasmOptions::default() });
    });
    bench.create(&spec).await.unwrap();
    let started = bench.start(&spec).await;
    // Its handle for the response is never dropped: nothing but the guest's return tells.
    for status in [201, 500, 203] {
        assert_eq!(bench.get(&spec, 8080).await.0.as_u16(), status);
    }
    started.handle.stop(None).await.unwrap();
}

#[tokio::test]
async fn a_request_whose_client_left_is_run_to_its_end() {
    let bench = Bench::new();
    // The first request of an instance takes a while.
    let body = "(if (i32.eqz (global.get $seen)) (then (local.set $answer (i32.const 300000000)) \
        (loop (br_if 0 (local.tee $answer (i32.sub (local.get $answer) (i32.const 1)))))))";
    let mut spec = bench.spec("web", &component(body));
    with_service(&mut spec, |service| {
        service.wasm = Some(WasmOptions { http_reuse: true, ..WasmOptions::default() });
    });
    bench.create(&spec).await.unwrap();
    let started = bench.start(&spec).await;
    let left = tokio::time::timeout(Duration::from_millis(30), bench.get(&spec, 8080)).await;
    assert!(left.is_err(), "it takes longer: {left:?}");
    let usage = || bench.wasm.usage(&spec.project).into_iter().next();
    tokio::time::timeout(PATIENCE, async {
        // It does not compute any more.
        let (mut last, mut still) = (None, 0);
        while still < 5 {
            let now = usage().map(|usage| usage.cpu).filter(|cpu| !cpu.is_zero());
            still = if now.is_some() && now == last { still + 1 } else { 0 };
            last = now;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("its end in time");
    assert_eq!(bench.get(&spec, 8080).await.0.as_u16(), 202, "the same instance, which saw both");
    started.handle.stop(None).await.unwrap();
}

#[tokio::test]
async fn a_trap_is_a_500_and_the_service_lives() {
    let bench = Bench::new();
    let spec = bench.spec("web", &component("(if (i32.eqz (global.get $seen)) (then unreachable))"));
    bench.create(&spec).await.unwrap();
    let mut started = bench.start(&spec).await;
    for _ in 0..2 {
        let (status, body) = bench.get(&spec, 8080).await;
        assert_eq!(
            (status, body.as_str()),
            (StatusCode::INTERNAL_SERVER_ERROR, "wcompose: the guest failed; its log says why\n")
        );
    }
    started.handle.stop(None).await.unwrap();
    started.exit().await;
    let written = started.written();
    assert_eq!(texts(&written)[0], "wasm trap: wasm `unreachable` instruction executed");
    assert!(texts(&written)[1].ends_with("!app::handle"), "{written:?}");
}

#[tokio::test]
async fn no_response_is_a_500() {
    let bench = Bench::new();
    let spec = bench.spec("web", &component("(return)"));
    bench.create(&spec).await.unwrap();
    let mut started = bench.start(&spec).await;
    assert_eq!(bench.get(&spec, 8080).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    started.handle.stop(None).await.unwrap();
    started.exit().await;
    assert_eq!(texts(&started.written()), ["the guest returned without a response"]);
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off_after_the_grace_period() {
    let bench = Bench::new();
    let spec = bench.spec("web", &component("(loop (br 0))"));
    bench.create(&spec).await.unwrap();
    let mut started = bench.start(&spec).await;
    let (status, stopped) = tokio::join!(async { bench.get(&spec, 8080).await.0 }, async {
        let in_flight = || bench.wasm.usage(&spec.project).iter().any(|usage| usage.memory > 0);
        tokio::time::timeout(PATIENCE, async {
            while !in_flight() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the request reaches the guest");
        started.handle.stop(Some(Duration::from_millis(100))).await
    });
    stopped.unwrap();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(started.exit().await.code, 137);
}

#[tokio::test]
async fn the_ports_are_the_services() {
    let bench = Bench::new();
    let mut spec = bench.spec("web", &component(""));
    with_service(&mut spec, |service| {
        service.expose.push(crate::model::ExposedPort { port: 3000, protocol: Default::default() });
    });
    bench.create(&spec).await.unwrap();
    let started = bench.start(&spec).await;
    assert_eq!(bench.get(&spec, 3000).await.0, StatusCode::CREATED);
    assert!(bench.wasm.dial(&spec.name, 8080).await.is_err());
    started.handle.stop(None).await.unwrap();
}
