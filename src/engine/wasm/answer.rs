//! One request, answered by a component: what goes wrong in the guest is a response, too, and a line in its log.
//!
//! Each request of `wasi:http@0.2` is answered by one instance ([`super::pool`]), on the task of whoever asks as long as it
//! waits for the response ([`super::inline`]). Instances of `wasi:http@0.3` are those of [`super::workers`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use wasmtime::component::InstancePre;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p3::bindings::ServicePre;
use wasmtime_wasi_http::{Error, WasiBody, WasiHttpView};

use super::cpu::measured;
use super::host::{Grants, State};
use super::inline::{Guests, Streamed};
use super::pool::Pool;
use super::trap::Ended;
use super::workers::{Made, Workers};
use crate::engine::Stream;

/// A linked HTTP component, by the handler it exports.
#[derive(Clone)]
pub enum Component {
    /// `wasi:http/incoming-handler@0.2`.
    P2(ProxyPre<State>),
    /// `wasi:http/handler@0.3`.
    P3(ServicePre<State>),
}

impl Component {
    /// Finds the handler; a component with both answers by the newer.
    pub fn new(linked: InstancePre<State>) -> wasmtime::Result<Self> {
        Ok(match ServicePre::new(linked.clone()) {
            Ok(service) => Self::P3(service),
            Err(_) => Self::P2(ProxyPre::new(linked)?),
        })
    }
}

/// How instances come and go.
enum Instances {
    /// Of `wasi:http@0.2`.
    Pool(Arc<Pool>),
    /// Of `wasi:http@0.3`, with the component model's concurrency.
    Workers(Workers),
}

/// A component that answers requests, and what its instances are given.
pub struct Generation {
    /// What they are given.
    pub grants: Arc<Grants>,
    /// Their folders, opened.
    pub files: WasiFilesystemCtx,
    instances: Instances,
    /// Ends the guests of this and all later ones.
    pub killed: CancellationToken,
}

impl Generation {
    /// A linked component; its folders are opened now.
    pub fn new(component: Component, grants: Arc<Grants>, reuse: bool) -> wasmtime::Result<Self> {
        let files = grants.files()?;
        Ok(Self::over(component, grants, reuse, files, CancellationToken::new()))
    }

    /// The same, with its folders open, ended with others.
    pub fn over(
        component: Component,
        grants: Arc<Grants>,
        reuse: bool,
        files: WasiFilesystemCtx,
        killed: CancellationToken,
    ) -> Self {
        let instances = match component {
            Component::P2(component) => Instances::Pool(Pool::new(component, files.clone(), reuse)),
            Component::P3(component) => {
                let made = Made { component, grants: grants.clone(), files: files.clone(), reuse };
                Instances::Workers(Workers::new(made, killed.clone()))
            }
        };
        Self { grants, files, instances, killed }
    }

    /// No instance is kept any more.
    pub fn retire(&self) {
        match &self.instances {
            Instances::Pool(pool) => pool.retire(),
            Instances::Workers(workers) => workers.retire(),
        }
    }

    /// Answers one request.
    pub async fn answer<B>(self: &Arc<Self>, request: Request<B>, guests: &Guests) -> Response<WasiBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Error>,
    {
        match &self.instances {
            Instances::Pool(pool) => self.answer_by(pool.clone(), request, guests).await,
            Instances::Workers(workers) => {
                let _running = guests.running.token();
                let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
                let answered = tokio::select! {
                    answered = workers.answer(request) => answered,
                    () = self.killed.cancelled() => return failure(StatusCode::SERVICE_UNAVAILABLE, "it is being stopped"),
                };
                answered.unwrap_or_else(|error| {
                    self.log(&error);
                    failure(StatusCode::INTERNAL_SERVER_ERROR, "the guest failed; its log says why")
                })
            }
        }
    }

    async fn answer_by<B>(self: &Arc<Self>, pool: Arc<Pool>, request: Request<B>, guests: &Guests) -> Response<WasiBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Error>,
    {
        let mut instance = pool.take(&self.grants);
        let mut http = instance.store.data_mut().http();
        let Ok(request) = http.new_incoming_request(Scheme::Http, request) else {
            return failure(StatusCode::BAD_REQUEST, "the request names no host");
        };
        let (respond, response) = oneshot::channel();
        let Ok(out) = http.new_response_outparam(respond) else {
            self.say("the instance holds too many handles");
            return failure(StatusCode::INTERNAL_SERVER_ERROR, "the guest failed; its log says why");
        };
        let (runs, failed) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let fails = failed.clone();
        let run = async move {
            let handle = runs.grants.turns.clone().run(instance.call(&pool, request, out));
            let handled = tokio::select! {
                biased;
                handled = handle => handled,
                () = runs.killed.cancelled() => {
                    fails.store(true, Ordering::Release);
                    return Fate::Stopped;
                }
            };
            match handled {
                Ok(()) => {
                    pool.give(instance);
                    Fate::Returned
                }
                Err(error) => {
                    fails.store(true, Ordering::Release);
                    runs.log(&error);
                    Fate::Failed
                }
            }
        };
        let mut run = guests.inline(measured(self.grants.meter.clone(), run));
        match run.until(response).await {
            Some(Ok(Ok(response))) => response.map(|body| Streamed::new(body, run, failed).boxed_unsync()),
            Some(Ok(Err(code))) => {
                self.say(&format!("the guest answered with an error: {code:?}"));
                failure(StatusCode::INTERNAL_SERVER_ERROR, "the guest answered with an error")
            }
            // It ended, or will, without a response.
            Some(Err(_)) | None => match run.end().await {
                Fate::Stopped => failure(StatusCode::SERVICE_UNAVAILABLE, "it is being stopped"),
                Fate::Failed => failure(StatusCode::INTERNAL_SERVER_ERROR, "the guest failed; its log says why"),
                Fate::Returned => {
                    self.say("the guest returned without a response");
                    failure(StatusCode::INTERNAL_SERVER_ERROR, "the guest gave no response")
                }
            },
        }
    }

    fn log(&self, error: &wasmtime::Error) {
        match Ended::from_error(error) {
            Ended::Exited(code) => self.say(&format!("the guest exited with code {code} instead of answering")),
            Ended::Trapped(trapped) => {
                for line in trapped.lines() {
                    self.say(&line);
                }
            }
        }
    }

    fn say(&self, line: &str) {
        self.grants.output.line(Stream::Stderr, line);
    }
}

/// How the run of a request ended.
enum Fate {
    Returned,
    Failed,
    Stopped,
}

/// What a client is told when there is no answer of the guest's.
pub fn failure(status: StatusCode, text: &'static str) -> Response<WasiBody> {
    said(status, format!("wcompose: {text}\n"))
}

/// An answer of the host's own.
pub fn said(status: StatusCode, text: impl Into<Bytes>) -> Response<WasiBody> {
    let body = Full::new(text.into()).map_err(Error::from).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    response
}
