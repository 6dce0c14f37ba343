//! How far a transfer is: a bar on a terminal, plain or JSON lines elsewhere, and samples.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::json;
use vmdt_node::PathReport;

use crate::clock::now;
use crate::net::link::{Carried, add};
use crate::out::Out;
use crate::text::{clock, octets};

/// How far back the rate that is shown looks.
const RATE_WINDOW: Duration = Duration::from_secs(4);
/// How often a plain or JSON line is written.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// How often a bar is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// The most samples that are kept; beyond it every second one goes.
const MAX_SAMPLES: usize = 20_000;

/// The state of transfer and network at a moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Seconds since the transfer began.
    pub(crate) seconds: f64,
    /// Octets of content that are there.
    pub(crate) octets: u64,
    /// Octets per second of late.
    pub(crate) rate: f64,
    /// Congestion windows of all direct paths, octets.
    pub(crate) cwnd: u64,
    /// Octets in flight on all direct paths.
    pub(crate) in_flight: u64,
    /// The largest smoothed round trip of the direct paths, milliseconds.
    pub(crate) rtt_ms: f64,
    /// Datagrams sent so far.
    pub(crate) sent: u64,
    /// Of these, lost.
    pub(crate) lost: u64,
}

#[derive(Debug)]
struct State {
    started: Instant,
    total: Option<u64>,
    done: u64,
    /// There before this session began.
    same: u64,
    carried: Carried,
    recent: VecDeque<(Instant, u64)>,
    samples: Vec<Sample>,
    bar: Option<ProgressBar>,
    said: Instant,
    label: &'static str,
}

/// Progress that tasks share.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    out: Out,
    state: Arc<Mutex<State>>,
}

impl Tally {
    pub(crate) fn new(out: &Out, label: &'static str) -> Tally {
        let started = now();
        Tally {
            out: out.clone(),
            state: Arc::new(Mutex::new(State {
                started,
                total: None,
                done: 0,
                same: 0,
                carried: Carried::new(),
                recent: VecDeque::new(),
                samples: Vec::new(),
                bar: None,
                said: started,
                label,
            })),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The content begins to move.
    pub(crate) fn begin(&self, total: Option<u64>) {
        let mut state = self.state();
        let at = now();
        state.started = at;
        state.said = at;
        state.total = total;
        state.done = 0;
        state.same = 0;
        state.carried.clear();
        state.recent = VecDeque::from([(at, 0)]);
        state.samples.clear();
        if self.out.draws() && state.bar.is_none() {
            // added first: until then it would draw itself, beside all others
            let bar = self.out.bars().add(match total {
                Some(total) => ProgressBar::new(total),
                None => ProgressBar::no_length(),
            });
            let template = if total.is_some() {
                "{prefix} {bar:16} {percent:>3}%  {wide_msg}"
            } else {
                "{prefix} {spinner}  {wide_msg}"
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("━╸ "));
            }
            bar.set_prefix(state.label);
            state.bar = Some(bar);
        }
    }

    /// This much more is there; `same` of it was there before.
    pub(crate) fn advance(&self, octets: u64, same: u64) {
        let mut state = self.state();
        state.done += octets;
        state.same += same;
        self.show(&mut state);
    }

    /// Who carried a message.
    pub(crate) fn carried(&self, carried: &Carried) {
        add(&mut self.state().carried, carried);
    }

    /// Takes in what the paths measure; to be called a few times a second.
    pub(crate) fn sample(&self, paths: &[PathReport]) {
        let mut state = self.state();
        let at = now();
        let per_second = rate_of(&mut state, at);
        let sample = Sample {
            seconds: at.saturating_duration_since(state.started).as_secs_f64(),
            octets: state.done,
            rate: per_second,
            cwnd: paths.iter().map(|p| p.stats.cwnd).sum(),
            in_flight: paths.iter().map(|p| p.stats.bytes_in_flight).sum(),
            rtt_ms: paths
                .iter()
                .map(|p| p.stats.srtt.as_secs_f64() * 1e3)
                .fold(0.0, f64::max),
            sent: paths.iter().map(|p| p.stats.packets_sent).sum(),
            lost: paths.iter().map(|p| p.stats.packets_lost).sum(),
        };
        state.samples.push(sample);
        if state.samples.len() > MAX_SAMPLES {
            let mut keep = false;
            state.samples.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.show(&mut state);
    }

    fn show(&self, state: &mut State) {
        let at = now();
        if let Some(bar) = &state.bar {
            let bar = bar.clone();
            let whole = state.total == Some(state.done);
            if !whole && at.saturating_duration_since(state.said) < DRAW_EVERY {
                return;
            }
            // not more often than the terminal takes both: they are to say the same
            state.said = at;
            bar.set_message(describe(state, at));
            bar.set_position(state.done);
            return;
        }
        if !self.out.wants_progress() || at.saturating_duration_since(state.said) < LINE_EVERY {
            return;
        }
        state.said = at;
        if self.out.is_json() {
            let per_second = rate_of(state, at);
            self.out.event(
                "progress",
                json!({
                    "octets": state.done,
                    "total": state.total,
                    "rate": per_second.round() as u64,
                    "paths": paths_json(&state.carried),
                }),
            );
        } else {
            let percent = match state.total {
                Some(total) if total > 0 => {
                    format!(" {:>3}%", u128::from(state.done) * 100 / u128::from(total))
                }
                _ => String::new(),
            };
            let how = describe(state, at);
            let line = format!("{}{percent}  {how}", state.label);
            self.out.say(line);
        }
    }

    /// Octets that the paths hold, as last measured.
    pub(crate) fn window(&self) -> u64 {
        self.state().samples.last().map_or(0, |sample| sample.cwnd)
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        if let Some(bar) = self.state().bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Octets there, of these there before, who carried what, and how long it took.
    pub(crate) fn summary(&self) -> (u64, u64, Carried, Duration) {
        let state = self.state();
        let took = now().saturating_duration_since(state.started);
        (state.done, state.same, state.carried.clone(), took)
    }

    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.state().samples.clone()
    }
}

/// Octets per second over the last seconds.
fn rate_of(state: &mut State, at: Instant) -> f64 {
    let apart = RATE_WINDOW / 64;
    if state
        .recent
        .back()
        .is_none_or(|(t, _)| at.saturating_duration_since(*t) >= apart)
    {
        state.recent.push_back((at, state.done));
    }
    while state.recent.len() > 2
        && state
            .recent
            .get(1)
            .is_some_and(|(t, _)| at.saturating_duration_since(*t) > RATE_WINDOW)
    {
        state.recent.pop_front();
    }
    let Some((since, before)) = state.recent.front() else {
        return 0.0;
    };
    let time = at.saturating_duration_since(*since).as_secs_f64();
    if time < 0.05 {
        0.0
    } else {
        state.done.saturating_sub(*before) as f64 / time
    }
}

fn describe(state: &mut State, at: Instant) -> String {
    let per_second = rate_of(state, at);
    let mut text = match state.total {
        Some(total) => format!("{} of {}", octets(state.done), octets(total)),
        None => octets(state.done),
    };
    text.push_str(&format!("  {}/s", octets(per_second as u64)));
    if let Some(total) = state.total {
        let left = total.saturating_sub(state.done);
        if left > 0 && per_second >= 1.0 {
            text.push_str(&format!(
                "  {} left",
                clock((left as f64 / per_second).ceil() as u64)
            ));
        } else if left > 0 {
            text.push_str("  waiting");
        }
    }
    let all: u64 = state.carried.values().map(|(_, octets)| octets).sum();
    // that all goes the one direct way is nothing to say all the time
    let one = state.carried.len() == 1 && state.carried.contains_key("direct");
    if all > 0 && !one {
        let parts: Vec<String> = state
            .carried
            .iter()
            .map(|(name, (_, octets))| format!("{name} {}%", octets * 100 / all))
            .collect();
        text.push_str(&format!("  [{}]", parts.join(", ")));
    }
    text
}

/// Who carried what, for JSON.
pub(crate) fn paths_json(carried: &Carried) -> serde_json::Value {
    carried
        .iter()
        .map(|(name, (shares, octets))| {
            (name.clone(), json!({ "shares": shares, "octets": octets }))
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}
