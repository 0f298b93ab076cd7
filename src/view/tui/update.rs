//! How the dashboard's state changes. Draws nothing and waits for nothing.

use jiff::Timestamp;

use super::state::State;
use crate::event::{Event, Stamped};
use crate::session::Update;

/// What can happen to the dashboard.
#[derive(Debug, Clone, PartialEq)]
pub enum Msg {
    /// The cursor goes up.
    Up,
    /// The cursor goes down.
    Down,
    /// The cursor goes to the first row.
    First,
    /// The cursor goes to the last row.
    Last,
    /// The person is done looking.
    Quit,
    /// The terminal has another size.
    Resized,
    /// Time went on.
    Tick(Timestamp),
    /// The session says something.
    Session(Update),
    /// The session says no more.
    Ended,
}

/// What the loop has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Leave the dashboard.
    Quit,
}

/// Takes a message in.
pub fn update(state: &mut State, message: Msg) -> Vec<Command> {
    let row = state.cursor().unwrap_or(0);
    match message {
        Msg::Up => state.select(row.saturating_sub(1)),
        Msg::Down => state.select(row.saturating_add(1)),
        Msg::First => state.select(0),
        Msg::Last => state.select(usize::MAX),
        Msg::Quit => return vec![Command::Quit],
        Msg::Resized => {}
        Msg::Tick(now) => {
            let same_second = now.as_second() == state.now.as_second();
            state.now = now;
            if same_second {
                return Vec::new();
            }
        }
        Msg::Session(Update::Event(stamped)) => event(state, &stamped, row),
        Msg::Session(Update::Resync(snapshot)) => {
            state.snapshot = *snapshot;
            keep_cursor(state, row);
        }
        Msg::Session(Update::Lost(why)) => state.lost = Some(why),
        Msg::Ended => state.lost = state.lost.take().or_else(|| Some("the connection ended".into())),
    }
    state.touch();
    Vec::new()
}

fn event(state: &mut State, stamped: &Stamped, row: usize) {
    state.snapshot.apply(stamped);
    keep_cursor(state, row);
    match &stamped.event {
        Event::Warned { message } => state.warning = Some(message.clone()),
        Event::StepFailed { id, error, .. } => state.warning = Some(format!("{id}: {error}")),
        Event::Refused { instance, what, .. } => state.warning = Some(format!("{instance} was refused to {what}")),
        Event::Planned { .. }
        | Event::PhaseChanged { .. }
        | Event::StepStarted { .. }
        | Event::StepFinished { .. }
        | Event::Changed { .. }
        | Event::Removed { .. }
        | Event::Reloaded { .. }
        | Event::Settled { .. } => {}
    }
}

/// The cursor stays on its instance; where that is gone, on its row.
fn keep_cursor(state: &mut State, row: usize) {
    if state.cursor().is_none() {
        state.select(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{InstanceState, Kind};
    use crate::model::InstanceName;
    use crate::view::sample::{self, after, epoch};
    use crate::view::style::Palette;

    fn state() -> State {
        State::new(sample::snapshot(), Palette::PLAIN, epoch())
    }

    fn selected(state: &State) -> String {
        state.selected.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    #[test]
    fn the_cursor_stops_at_both_ends() {
        let mut state = state();
        let mut seen = Vec::new();
        for message in [Msg::Up, Msg::Down, Msg::Down, Msg::Down, Msg::Up, Msg::First, Msg::Last] {
            update(&mut state, message);
            seen.push(selected(&state));
        }
        assert_eq!(seen, ["db-1", "api-1", "gateway-1", "gateway-1", "api-1", "db-1", "gateway-1"]);
    }

    #[test]
    fn the_cursor_stays_on_its_instance_and_then_on_its_row() {
        let mut state = state();
        update(&mut state, Msg::Down);
        let removed = |service: &str| {
            Msg::Session(sample::update(1, Event::Removed { instance: InstanceName::new(service.into(), 1) }))
        };
        update(&mut state, removed("db"));
        assert_eq!(selected(&state), "api-1");
        update(&mut state, removed("api"));
        assert_eq!(selected(&state), "gateway-1");
        update(&mut state, removed("gateway"));
        assert_eq!(selected(&state), "");
        let cache = sample::instance("cache", Kind::Linux, InstanceState::Starting);
        update(&mut state, Msg::Session(sample::changed(2, &cache)));
        assert_eq!(selected(&state), "cache-1");
    }

    #[test]
    fn only_what_can_be_seen_asks_for_a_frame() {
        let mut state = state();
        state.drawn();
        update(&mut state, Msg::Tick(after(900)));
        assert!(!state.is_dirty(), "still the same second");
        update(&mut state, Msg::Tick(after(1_000)));
        assert!(state.is_dirty());
        state.drawn();
        update(&mut state, Msg::Resized);
        assert!(state.is_dirty());
    }

    #[test]
    fn quitting_leaves_and_a_lost_session_is_told() {
        let mut state = state();
        assert_eq!(update(&mut state, Msg::Quit), [Command::Quit]);
        assert_eq!(update(&mut state, Msg::Session(Update::Lost("it was killed".into()))), []);
        update(&mut state, Msg::Ended);
        assert_eq!(state.lost.as_deref(), Some("it was killed"), "the reason is kept");
    }
}
