//! The loop on paused time, with the scripted engine.

use std::path::Path;

use super::*;
use crate::engine::fake::{Fake, Run};
use crate::event::InstanceState;
use crate::model::Restart;
use crate::net::stack::{Conn, NetError, Stream};
use crate::plan::observed::Health;
use crate::plan::unit::EdgeCondition::{Healthy, Started};
use crate::session::{LogInterest, Update};
use crate::supervisor::testing::{Draft, down, instance, linux, up, wasm};

/// A running supervisor.
struct Project {
    fake: Fake,
    orders: mpsc::Sender<Order>,
    task: JoinSet<Outcome>,
}

impl Project {
    fn begin(lifetime: Lifetime, logs: Option<&Path>) -> Self {
        let dial: Dial = Arc::new(|_, _| Box::pin(async { Err(NetError::UnknownName) }));
        Self::begin_with(lifetime, logs, dial)
    }

    fn begin_with(lifetime: Lifetime, logs: Option<&Path>, dial: Dial) -> Self {
        let fake = Fake::default();
        let (orders, receiver) = mpsc::channel(16);
        let setup = Setup {
            project: ProjectName::new("p"),
            directory: "/p".into(),
            files: Vec::new(),
            logs: logs.map(Path::to_owned),
            follow_linux: true,
            lifetime,
            dial,
            commands: mpsc::channel(1).0,
        };
        let mut task = JoinSet::new();
        task.spawn(run(Arc::new(fake.clone()), setup, receiver));
        Self { fake, orders, task }
    }

    async fn adopt(&self, plan: Plan, goal: Goal) -> Reply {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Adopt { plan, goal, reply }).await;
        answer.await.expect("answered")
    }

    async fn up(&self, drafts: &[Draft]) -> Reply {
        self.adopt(up(drafts), Goal::Up).await
    }

    async fn send(&self, order: Order) {
        self.orders.send(order).await.expect("the supervisor runs");
    }

    async fn attach(&self, logs: LogMode) -> Session {
        let (reply, session) = oneshot::channel();
        let logs = LogInterest { mode: logs, ..LogInterest::default() };
        self.send(Order::Attach(Attach { logs, reply })).await;
        session.await.expect("attached")
    }

    async fn outcome(mut self) -> Outcome {
        self.task.join_next().await.expect("one task").expect("no panic")
    }
}

const FINE: Reply = Reply::Settled { failures: Vec::new() };

fn runs_as(fake: &Fake, service: &str, run: Run) {
    fake.script(&instance(service), [run]);
}

/// Follows a session until an instance is in this state.
async fn until(session: &mut Session, service: &str, reached: impl Fn(&InstanceView) -> bool) {
    loop {
        if session.snapshot.instances.get(&instance(service)).is_some_and(&reached) {
            return;
        }
        match session.updates.recv().await.expect("the supervisor runs") {
            Update::Event(Stamped { event: Event::Changed { instance }, .. }) => {
                session.snapshot.instances.insert(instance.name.clone(), *instance);
            }
            Update::Resync(snapshot) => session.snapshot = *snapshot,
            Update::Event(_) | Update::Lost(_) => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stack_comes_up_in_order_and_goes_down_in_reverse() {
    let project = Project::begin(Lifetime::UntilDown, None);
    let healths = vec![(Duration::from_secs(3), Health::Healthy)];
    runs_as(&project.fake, "db", Run { health: Some(Health::Starting), healths, ..Run::default() });
    let drafts = [linux("db"), linux("web").after("db", Healthy)];
    let begun = now();
    assert_eq!(project.up(&drafts).await, FINE);
    assert_eq!(begun.elapsed(), Duration::from_secs(3), "nothing waits longer than its dependency");
    assert_eq!(project.adopt(down(&["web", "db"]), Goal::Down(Vec::new())).await, FINE);
    let fake = project.fake.clone();
    assert_eq!(project.outcome().await, Outcome { ending: Ending::Done, instances: Vec::new() });
    let journal = fake.journal();
    assert_eq!(journal[2..4], ["start db-1", "start web-1"]);
    let stops: Vec<_> =
        journal.iter().filter(|entry| entry.starts_with("stop") || entry.starts_with("remove")).collect();
    assert_eq!(stops, ["stop web-1", "remove p-web-1", "stop db-1", "remove p-db-1", "remove network p_default"]);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_wait_for_each_other_starts_at_the_same_time() {
    let project = Project::begin(Lifetime::UntilDown, None);
    let names = ["a", "b", "c", "d"];
    for name in names {
        runs_as(&project.fake, name, Run { starts_in: Duration::from_secs(1), ..Run::default() });
    }
    project.fake.steps_take(Duration::from_secs(1));
    let begun = now();
    assert_eq!(project.up(&names.map(linux)).await, FINE);
    assert_eq!(begun.elapsed(), Duration::from_secs(2), "one second to create, one to start");
}

#[tokio::test(start_paused = true)]
async fn the_second_signal_kills_whoever_does_not_end() {
    let project = Project::begin(Lifetime::UntilDown, None);
    runs_as(&project.fake, "deaf", Run { stops_in: Duration::from_secs(3600), ..Run::default() });
    assert_eq!(project.up(&[linux("deaf")]).await, FINE);
    let begun = now();
    project.send(Order::Signal).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    project.send(Order::Signal).await;
    let outcome = project.outcome().await;
    assert_eq!(outcome.ending, Ending::Done);
    assert_eq!(outcome.instances[0].state, InstanceState::Exited { code: 137, reason: None });
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_an_engine_is_that_instances_failure_and_nobody_elses() {
    let project = Project::begin(Lifetime::UntilDown, None);
    runs_as(&project.fake, "bad", Run { panics: true, ..Run::default() });
    let Reply::Settled { failures } = project.up(&[linux("bad"), linux("good")]).await else { panic!("taken") };
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].message, "internal error: the script of bad-1 says so");
    let session = project.attach(LogMode::Off).await;
    assert_eq!(session.snapshot.instances[&instance("good")].state, InstanceState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_guest_is_restarted_with_backoff() {
    let project = Project::begin(Lifetime::UntilDown, None);
    let crash = Run { exits: Some((Duration::ZERO, 1)), ..Run::default() };
    project.fake.script(&instance("guest"), [crash.clone(), crash, Run::default()]);
    let begun = now();
    project.up(&[wasm("guest").policy(Restart::Always)]).await;
    let mut session = project.attach(LogMode::Off).await;
    until(&mut session, "guest", |view| view.restarts == 2 && view.state == InstanceState::Running).await;
    // Tokio's timers tick in milliseconds.
    assert!((300..310).contains(&begun.elapsed().as_millis()), "100 ms, then 200 ms: {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_session_has_the_state_and_every_change_after_it() {
    let project = Project::begin(Lifetime::UntilIdle, None);
    runs_as(&project.fake, "job", Run { exits: Some((Duration::from_secs(1), 7)), ..Run::default() });
    assert_eq!(project.up(&[linux("job")]).await, FINE);
    let mut session = project.attach(LogMode::Off).await;
    assert_eq!(session.snapshot.instances[&instance("job")].state, InstanceState::Running);
    until(&mut session, "job", |view| view.state == InstanceState::Exited { code: 7, reason: None }).await;
    assert_eq!(project.outcome().await.ending, Ending::Done, "nothing is left to own");
    let last = std::iter::from_fn(|| session.updates.try_recv().ok()).last();
    let Some(Update::Event(Stamped { event: Event::PhaseChanged { phase }, .. })) = last else { panic!("{last:?}") };
    assert_eq!(phase, crate::event::Phase::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_hold_is_answered_when_nothing_is_under_way_and_a_release_lets_go_on() {
    let project = Project::begin(Lifetime::UntilDown, None);
    runs_as(&project.fake, "db", Run { starts_in: Duration::from_secs(5), ..Run::default() });
    let plan = up(&[linux("db"), linux("web").after("db", Started)]);
    let (reply, answer) = oneshot::channel();
    project.send(Order::Adopt { plan, goal: Goal::Up, reply }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (reply, held) = oneshot::channel();
    project.send(Order::Hold { reply }).await;
    held.await.expect("held");
    assert_eq!(project.fake.journal(), ["create db-1", "create web-1", "start db-1"]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(project.fake.journal().len(), 3, "nothing begins while it is held");
    project.send(Order::Release).await;
    assert_eq!(answer.await.expect("answered"), FINE);
}

#[tokio::test(start_paused = true)]
async fn when_nobody_can_give_orders_what_runs_is_left_running() {
    let Project { fake, orders, task } = Project::begin(Lifetime::UntilDown, None);
    let project = Project { fake: fake.clone(), orders, task };
    assert_eq!(project.up(&[linux("web")]).await, FINE);
    let Project { orders, mut task, .. } = project;
    drop(orders);
    let outcome = task.join_next().await.expect("one task").expect("no panic");
    assert_eq!(outcome.ending, Ending::Left);
    assert!(!fake.journal().iter().any(|entry| entry.starts_with("stop")));
}

#[tokio::test]
async fn kept_lines_and_live_lines_join_without_a_gap() {
    let folder = tempfile::tempdir().expect("a folder");
    let project = Project::begin(Lifetime::UntilIdle, Some(folder.path()));
    let numbered = |numbers: std::ops::Range<u32>| numbers.map(|number| number.to_string()).collect();
    let first = Run { lines: numbered(0..3000), exits: Some((Duration::from_millis(1), 1)), ..Run::default() };
    let exits = Some((Duration::from_millis(50), 0));
    let second = Run { lines: numbered(3000..6000), exits, ..Run::default() };
    project.fake.script(&instance("guest"), [first, second]);
    project.up(&[wasm("guest").policy(Restart::OnFailure { maximum: 1 })]).await;
    let mut session = project.attach(LogMode::Follow).await;
    let mut texts = Vec::new();
    while let Some(line) = session.logs.recv().await {
        assert_eq!(line.dropped, 0);
        texts.push(line.text);
    }
    assert_eq!(texts, (0..6000).map(|number| number.to_string()).collect::<Vec<_>>());
    let interest = LogInterest { tail: Some(2), ..LogInterest::default() };
    let kept: Vec<_> = crate::supervisor::logs::read(folder.path(), &interest).map(|line| line.text).collect();
    assert_eq!(kept, ["5998", "5999"], "the files outlive the supervisor");
    assert_eq!(project.outcome().await.ending, Ending::Done);
}

#[tokio::test]
async fn a_containers_lines_are_passed_on_and_not_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let project = Project::begin(Lifetime::UntilDown, Some(folder.path()));
    let mut session = project.attach(LogMode::Follow).await;
    runs_as(&project.fake, "box", Run { lines: vec!["hello".into()], ..Run::default() });
    project.up(&[linux("box")]).await;
    assert_eq!(session.logs.recv().await.expect("a line").text, "hello");
    assert_eq!(crate::supervisor::logs::read(folder.path(), &LogInterest::default()).count(), 0);
}

/// Answers HTTP probes of a guest with this status line.
fn answering(status: &'static str) -> Dial {
    Arc::new(move |_, port| {
        Box::pin(async move {
            let (ours, mut theirs) = tokio::io::duplex(1024);
            #[expect(clippy::disallowed_methods, reason = "it ends with the probe's connection")]
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut request = [0; 1024];
                let _ = theirs.read(&mut request).await;
                let _ = theirs.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await;
            });
            let local = std::net::SocketAddr::from(([127, 0, 0, 1], port));
            Ok(Conn { io: Stream::Inside(ours), local, peer: local })
        })
    })
}

#[tokio::test(start_paused = true)]
async fn a_guests_health_is_what_its_probes_say() {
    let drafts = [wasm("guest").check("curl -f http://localhost:8080/ready"), linux("web").after("guest", Healthy)];
    let project = Project::begin_with(Lifetime::UntilDown, None, answering("204 No Content"));
    assert_eq!(project.up(&drafts).await, FINE);
    let project = Project::begin_with(Lifetime::UntilDown, None, answering("503 Service Unavailable"));
    let Reply::Settled { failures } = project.up(&drafts).await else { panic!("taken") };
    assert_eq!(
        failures[0].message,
        "dependency `guest` failed to start: container `p-guest-1` is unhealthy: GET /ready on port 8080: answered 503 Service Unavailable"
    );
}
