//! Makes the measurements of figures: several at once, with turns, repeats and a record.
//!
//! The unit of work is a setting with a seed: one worker takes it and runs every contender in it,
//! one after the other, so that contenders meet the same losses and the same minutes of the
//! machine. Workers have links and hosts of their own. A measurement that the machine disturbed is
//! made again, and the choice between attempts looks at the disturbance, never at the result.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::figures::{self, Cell, Effort, Figure, PATHS, RELAYS};
use crate::record::{self, Conditions, Record, Row};
use crate::run::{Common, Contender, Outcome, Workload, content, settle};
use crate::world::World;
use crate::{clock, emulator, left_out, loopback, setting};

/// Measurements made at once unless told otherwise. They mostly wait for the emulated network; so
/// many of them leave packets as punctual as a few do, with two processors; of twelve, most that
/// carried bulk content had to be repeated (the crate's README has figures).
pub const JOBS: usize = 8;
/// Worlds at once, at most: each has an emulator that would like a processor whenever a packet is
/// due.
pub const MAX_JOBS: usize = 16;
/// How often a disturbed measurement is made again.
const REPEATS: u64 = 2;
/// Packets later than 200 us, as a part of all, above which a measurement is made again.
const LATE: f64 = 0.01;
/// As many may be so late in any measurement: of the hundred packets of a burst one is 1%, and what
/// one can do is bounded by the worst.
const LATE_ANYWAY: f64 = 3.0;
/// A packet this late makes a short measurement be made again: 2 ms are what a tenth of the
/// shortest round trip is, and the last packet of a burst decides its time.
const WORST_SHORT: Duration = Duration::from_millis(2);
/// The same for seconds of bulk content, where one packet decides nothing unless it looks lost:
/// less than half of a round trip.
const WORST_LONG: Duration = Duration::from_millis(20);
/// The real-time priority of whoever listens to peers and takes paths down: below theirs.
const LISTENER: u8 = 5;

/// A setting and a seed, with those who are still to be measured in it.
struct Task {
    figure: &'static Figure,
    cell: Cell,
    seed: u64,
    contenders: Vec<&'static Contender>,
}

/// What a worker has to tell.
enum News {
    /// A measurement was made.
    Found(&'static Figure, Vec<Row>, Vec<(Duration, u64)>),
    /// One could not be made.
    Failed(&'static Figure, String, String),
    /// A task is done.
    Done(String, f64),
}

/// How much was found out, and how it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Measurements made and recorded.
    pub measured: u64,
    /// Measurements that were there already.
    pub kept: u64,
    /// Measurements that failed twice and are left out.
    pub left_out: u64,
}

/// Measures figures and writes their raw data into `folder`.
///
/// # Errors
/// When the lab itself fails; a contender that fails twice is noted and left out of that round.
pub fn measure(
    figures: &[&'static Figure],
    effort: Effort,
    folder: &Path,
    log: &mut dyn Write,
) -> Result<Tally> {
    std::fs::create_dir_all(folder).with_context(|| format!("the folder {}", folder.display()))?;
    setting::write(folder)?;
    let mut tally = Tally::default();
    let mut records = BTreeMap::new();
    let mut tasks = Vec::new();
    for &figure in figures {
        let known = begin(figure, effort, folder, &mut records)?;
        tally.kept += known.len() as u64;
        if figure.id != "loopback" {
            tasks.extend(plan(figure, effort, &known));
        }
    }
    // seed by seed through all figures: an interrupted report is a whole one of fewer seeds, and
    // measurements that need much processor time are spread among those that do not
    tasks.sort_by_key(|task| task.seed);
    let tasks = VecDeque::from(tasks);
    let alone = figures.iter().find(|figure| figure.id == "loopback");
    let loopback_cost = alone.map_or(0.0, |_| loopback::cost(effort));
    let total: f64 = tasks.iter().map(Task::cost).sum();
    let jobs = effort.jobs.clamp(1, MAX_JOBS).min(tasks.len().max(1));
    let expected = Duration::from_secs_f64(total / jobs as f64 + loopback_cost);
    writeln!(
        log,
        "{} measurements, {} there already, {jobs} at once: about {}",
        tasks.iter().map(|t| t.contenders.len()).sum::<usize>()
            + alone.map_or(0, |_| loopback::count(effort)),
        tally.kept,
        minutes(expected)
    )?;
    log.flush()?;

    let common = Common::new()?;
    let begun = clock::now();
    let queue = Mutex::new(tasks);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (news, inbox) = mpsc::channel();
        for _ in 0..jobs {
            let (news, queue, common, stop) = (news.clone(), &queue, &common, &stop);
            scope.spawn(move || {
                if let Err(error) = work(queue, jobs, common, stop, &news) {
                    let _ = news.send(Err(error));
                }
            });
        }
        drop(news);
        let mut progress = Progress {
            begun,
            done: 0.0,
            total,
            after: loopback_cost,
        };
        let listened = listen(&inbox, &mut records, folder, &mut progress, &mut tally, log);
        // whatever went wrong here, workers end after the measurement they are at
        stop.store(true, Ordering::Relaxed);
        listened
    })?;
    if let Some(figure) = alone
        && let Some(record) = records.get_mut(figure.id)
    {
        tally.measured += loopback::measure(&common, effort, record, folder, log)?;
    }
    for figure in figures {
        record::sort(folder, figure.id, |row| figures::place(figure, row))?;
    }
    Ok(tally)
}

/// Opens a figure's file with what is kept of it; the measurements that are there already.
fn begin(
    figure: &'static Figure,
    effort: Effort,
    folder: &Path,
    records: &mut BTreeMap<&'static str, Record>,
) -> Result<BTreeSet<String>> {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for row in record::read(folder, figure.id) {
        *counts.entry(row.key()).or_default() += 1;
    }
    let wanted = |row: &Row| effort.only.is_none_or(|only| only.label == row.contender);
    let keep = |row: &Row| match effort.resume {
        // files of before the conditions were noted are not what is resumed
        true => !wanted(row) || row.conditions.is_some() || figure.id == "loopback",
        false => !wanted(row) && effort.only.is_some(),
    };
    let record = Record::begin(folder, figure.id, keep)?;
    records.insert(figure.id, record);
    let rows = record::read(folder, figure.id);
    let known: BTreeSet<String> = rows.iter().filter(|r| wanted(r)).map(Row::key).collect();
    left_out::forget(folder, figure.id, effort.only.map(|only| only.label))?;
    if has_arrivals(figure) {
        let first: BTreeSet<&str> = rows
            .iter()
            .filter(|row| row.seed == 1)
            .map(|row| row.contender.as_str())
            .collect();
        keep_arrivals(folder, figure, &first)?;
    }
    Ok(known)
}

fn plan(figure: &'static Figure, effort: Effort, known: &BTreeSet<String>) -> Vec<Task> {
    let mut tasks = Vec::new();
    for cell in figures::cells(figure.id, effort.quick) {
        for seed in 1..=figures::seeds(figure.id, effort) {
            let mut contenders = figures::contenders(figure.id, effort.quick);
            contenders.retain(|contender| {
                effort.only.is_none_or(|only| only == *contender)
                    && figures::takes_part(contender, figure.id, &cell)
                    && !known.contains(&blank(figure, &cell, contender, seed).key())
            });
            if !contenders.is_empty() {
                tasks.push(Task {
                    figure,
                    cell: cell.clone(),
                    seed,
                    contenders,
                });
            }
        }
    }
    tasks
}

/// Takes tasks until there are none.
fn work(
    queue: &Mutex<VecDeque<Task>>,
    jobs: usize,
    common: &Common,
    stop: &AtomicBool,
    news: &mpsc::Sender<Result<News>>,
) -> Result<()> {
    // its hosts start peers, which are to begin without priority: first the world, then this
    let world = World::new(PATHS, RELAYS)?;
    emulator::realtime(LISTENER);
    loop {
        let task = queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        let Some(task) = task else { return Ok(()) };
        for contender in &task.contenders {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let found = match carefully(common, &world, &task, contender) {
                Ok((outcome, repeats)) => News::Found(
                    task.figure,
                    rows(&task, contender, &outcome, repeats, jobs),
                    match task.seed {
                        1 if has_arrivals(task.figure) => outcome.arrivals,
                        _ => Vec::new(),
                    },
                ),
                Err(error) => News::Failed(
                    task.figure,
                    blank(task.figure, &task.cell, contender, task.seed).key(),
                    format!("{error:#}"),
                ),
            };
            news.send(Ok(found))
                .map_err(|_| anyhow!("nobody listens"))?;
        }
        let done = News::Done(task.title(), task.cost());
        news.send(Ok(done)).map_err(|_| anyhow!("nobody listens"))?;
    }
}

/// A measurement, made again when the machine disturbed it or the contender failed; how often.
fn carefully(
    common: &Common,
    world: &World,
    task: &Task,
    contender: &'static Contender,
) -> Result<(Outcome, u64)> {
    let plan = task.cell.plan(contender, task.seed);
    let mut best: Option<Outcome> = None;
    let mut failed = false;
    let mut repeats = 0;
    loop {
        match common.run(world, &plan) {
            Ok(outcome) => {
                let disturbance = |o: &Outcome| disturbance(o, plan.workload);
                let better = best
                    .as_ref()
                    .is_none_or(|best| disturbance(&outcome) < disturbance(best));
                if better {
                    best = Some(outcome);
                }
            }
            Err(error) if failed => return Err(error),
            Err(_) => {
                failed = true;
                continue;
            }
        }
        match best {
            Some(outcome) if disturbance(&outcome, plan.workload) <= 1.0 || repeats == REPEATS => {
                return Ok((outcome, repeats));
            }
            _ => repeats += 1,
        }
    }
}

/// How much of what is allowed the machine disturbed a measurement: 1 is the bound.
fn disturbance(outcome: &Outcome, workload: Workload) -> f64 {
    let lateness = outcome.lateness;
    let is_long = matches!(workload, Workload::Bulk { .. });
    of_the_bounds(lateness.packets, lateness.late, lateness.worst, is_long)
}

fn of_the_bounds(packets: u64, late: u64, worst: Duration, is_long: bool) -> f64 {
    let bound = if is_long { WORST_LONG } else { WORST_SHORT };
    let allowed = (packets as f64 * LATE).max(LATE_ANYWAY);
    (late as f64 / allowed).max(worst.as_secs_f64() / bound.as_secs_f64())
}

/// Whether a figure's measurement is recorded although the machine disturbed it, for all repeats.
pub(crate) fn is_disturbed(figure: &Figure, conditions: &Conditions) -> bool {
    let mut cells = figures::cells(figure.id, false).into_iter();
    let is_long = cells.any(|cell| matches!(cell.workload, Workload::Bulk { .. }));
    let worst = Duration::from_secs_f64(conditions.worst_us.max(0.0) / 1e6);
    of_the_bounds(conditions.packets, conditions.late, worst, is_long) > 1.0
}

struct Progress {
    begun: Instant,
    done: f64,
    total: f64,
    after: f64,
}

impl Progress {
    /// What is left, if it goes on like this.
    fn left(&self) -> Duration {
        let elapsed = (clock::now() - self.begun).as_secs_f64();
        let rest = elapsed * (self.total - self.done).max(0.0) / self.done.max(1e-9);
        Duration::from_secs_f64(rest + self.after)
    }
}

/// Writes down what workers tell.
fn listen(
    inbox: &mpsc::Receiver<Result<News>>,
    records: &mut BTreeMap<&'static str, Record>,
    folder: &Path,
    progress: &mut Progress,
    tally: &mut Tally,
    log: &mut dyn Write,
) -> Result<()> {
    for news in inbox {
        match news? {
            News::Found(figure, rows, arrivals) => {
                let contender = rows.first().map(|row| row.contender.clone());
                if let Some(contender) = contender.filter(|_| !arrivals.is_empty()) {
                    add_arrivals(folder, figure, &contender, &arrivals)?;
                }
                let record = records.get_mut(figure.id).context("no such record")?;
                record.add(&rows)?;
                tally.measured += 1;
            }
            News::Failed(figure, key, error) => {
                writeln!(log, "  left out: {error}")?;
                left_out::add(folder, figure.id, &key, &error)?;
                tally.left_out += 1;
            }
            News::Done(title, cost) => {
                progress.done += cost;
                writeln!(log, "  {title}; {} left", minutes(progress.left()))?;
                log.flush()?;
            }
        }
    }
    Ok(())
}

fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02} min", seconds / 60, seconds % 60)
}

impl Task {
    fn title(&self) -> String {
        format!(
            "{}: {} Mbit/s, {:?}, loss {}%, {}: seed {}",
            self.figure.id,
            self.cell.path.rate.unwrap_or(0) / 1_000_000,
            self.cell.path.rtt,
            self.cell.percent(),
            self.cell.kind,
            self.seed
        )
    }

    /// About how many seconds it takes, for the time that is left.
    fn cost(&self) -> f64 {
        let each = self.contenders.iter();
        each.map(|contender| cost(&self.cell, contender)).sum()
    }
}

fn cost(cell: &Cell, contender: &Contender) -> f64 {
    let rtt = cell.path.rtt.as_secs_f64();
    let processes = match contender.name {
        "vmdt" => 3 + contender.relays,
        _ => 2,
    };
    let mut cost = 0.05 * processes as f64;
    if cell.kind != "cold" {
        cost += settle(contender).as_secs_f64() + 0.05 + 13.0 * rtt;
    }
    cost + match cell.workload {
        Workload::Burst { .. } if contender.name == "onezero" => 59.0 * 3.0 * rtt,
        Workload::Burst { .. } => 0.1 + 4.0 * rtt,
        Workload::Requests { count } => f64::from(count) * rtt * 1.3,
        Workload::Bulk { limit, .. } => limit.as_secs_f64() * 0.9,
    } + if cell.path.rate.is_some() && matches!(cell.workload, Workload::Bulk { .. }) {
        1.0
    } else {
        0.0
    }
}

/// Whether it is kept when what arrived.
fn has_arrivals(figure: &Figure) -> bool {
    figure.id == "picture" || figure.id == "outage"
}

fn arrivals_file(folder: &Path, figure: &Figure) -> std::path::PathBuf {
    folder.join(format!("{}-arrivals.csv", figure.id))
}

/// Begins the arrivals' file, with those of these contenders.
fn keep_arrivals(folder: &Path, figure: &Figure, of: &BTreeSet<&str>) -> Result<()> {
    let file = arrivals_file(folder, figure);
    let old = std::fs::read_to_string(&file).unwrap_or_default();
    let kept: String = old
        .lines()
        .filter(|line| line.split(',').next().is_some_and(|who| of.contains(who)))
        .map(|line| format!("{line}\n"))
        .collect();
    let text = format!("contender,ms,delivered\n{kept}");
    std::fs::write(&file, text).with_context(|| file.display().to_string())
}

/// At most about 400 points of a curve.
fn add_arrivals(
    folder: &Path,
    figure: &Figure,
    contender: &str,
    arrivals: &[(Duration, u64)],
) -> Result<()> {
    let file = arrivals_file(folder, figure);
    let some = arrivals.iter().step_by(arrivals.len() / 400 + 1);
    let lines: String = some
        .map(|(at, count)| format!("{contender},{:.3},{count}\n", at.as_secs_f64() * 1e3))
        .collect();
    std::fs::OpenOptions::new()
        .append(true)
        .open(&file)
        .and_then(|mut file| file.write_all(lines.as_bytes()))
        .with_context(|| file.display().to_string())
}

/// A measurement's row before anything is known.
fn blank(figure: &Figure, cell: &Cell, contender: &Contender, seed: u64) -> Row {
    Row {
        figure: figure.id.to_owned(),
        contender: contender.label.to_owned(),
        rate: cell.path.rate.unwrap_or(0) as f64 / 1e6,
        rtt: cell.path.rtt.as_secs_f64() * 1e3,
        loss: cell.percent(),
        kind: cell.kind.to_owned(),
        seed,
        ms: None,
        sent: 0,
        content: 0,
        value: None,
        conditions: None,
    }
}

fn rows(
    task: &Task,
    contender: &Contender,
    outcome: &Outcome,
    repeats: u64,
    jobs: usize,
) -> Vec<Row> {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let cell = &task.cell;
    let row = Row {
        ms: outcome.took.map(ms),
        sent: outcome.sent,
        content: match cell.workload {
            Workload::Bulk { .. } => outcome.bulk.0,
            workload => content(workload),
        },
        value: match task.figure.id {
            "bulk" => Some(outcome.goodput() / 1e6),
            "outage" => Some(ms(standstill(&outcome.arrivals))),
            "fairness" => {
                let (octets, time) = outcome.competing;
                let rate = octets as f64 * 8.0 / time.as_secs_f64().max(1e-9);
                let fair = cell.path.rate.unwrap_or(0) as f64 / 2.0;
                Some(rate / fair.max(1.0))
            }
            _ => None,
        },
        conditions: Some(Conditions {
            packets: outcome.lateness.packets,
            mean_us: us(outcome.lateness.mean()),
            late: outcome.lateness.late,
            worst_us: us(outcome.lateness.worst),
            waited_ms: ms(outcome.waited),
            repeats,
            jobs: jobs as u64,
        }),
        ..blank(task.figure, cell, contender, task.seed)
    };
    let Workload::Requests { count } = cell.workload else {
        return vec![row];
    };
    // those that were not answered in time are rows without one
    let all = u64::from(count).max(1);
    (0..count as usize)
        .map(|i| Row {
            ms: outcome.requests.get(i).copied().map(ms),
            sent: row.sent / all,
            content: row.content / all,
            ..row.clone()
        })
        .collect()
}

/// The longest time in which nothing arrived.
fn standstill(arrivals: &[(Duration, u64)]) -> Duration {
    let next = arrivals.iter().skip(1);
    arrivals
        .iter()
        .zip(next)
        .map(|((a, _), (b, _))| b.saturating_sub(*a))
        .max()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::Lateness;
    use crate::run::contender;

    fn effort(seeds: u64) -> Effort {
        Effort {
            seeds,
            quick: false,
            only: None,
            jobs: 1,
            resume: true,
        }
    }

    #[test]
    fn the_longest_standstill_is_found() {
        let at = |ms| (Duration::from_millis(ms), 0);
        assert_eq!(
            standstill(&[at(1), at(5), at(50), at(60)]),
            Duration::from_millis(45)
        );
        assert_eq!(standstill(&[]), Duration::ZERO);
    }

    #[test]
    fn what_is_known_is_not_measured_again_and_the_rest_is() {
        let figure = figures::figure("message").expect("a figure");
        let all = plan(figure, effort(2), &BTreeSet::new());
        let cells = figures::cells("message", false).len();
        assert_eq!(all.len(), 2 * cells);
        let (task, rest) = all.split_first().expect("a task");
        let (who, others) = task.contenders.split_first().expect("a contender");
        let known = BTreeSet::from([blank(figure, &task.cell, who, task.seed).key()]);
        let left = plan(figure, effort(2), &known);
        assert_eq!(left.len(), all.len());
        assert_eq!(left.first().expect("a task").contenders, others);

        let whole = task.contenders.iter();
        let known = whole.map(|c| blank(figure, &task.cell, c, task.seed).key());
        let left = plan(figure, effort(2), &known.collect());
        assert_eq!(left.len(), rest.len());
    }

    #[test]
    fn a_late_packet_disturbs_a_burst_and_not_seconds_of_bulk_content() {
        let of = |packets, late, worst| Outcome {
            lateness: Lateness {
                packets,
                late,
                worst: Duration::from_millis(worst),
                ..Lateness::default()
            },
            ..Outcome::default()
        };
        let burst = figures::BURST;
        let bulk = Workload::Bulk {
            octets: 1,
            limit: Duration::from_secs(1),
        };
        assert!(disturbance(&of(300, 3, 2), burst) <= 1.0);
        assert!(disturbance(&of(300, 4, 2), burst) > 1.0);
        assert!(disturbance(&of(90, 3, 2), burst) <= 1.0);
        assert!(disturbance(&of(90, 4, 2), burst) > 1.0);
        assert!(disturbance(&of(300, 1, 3), burst) > 1.0);
        assert!(disturbance(&of(30_000, 1, 3), bulk) <= 1.0);
        assert!(disturbance(&of(30_000, 1, 21), bulk) > 1.0);
        assert!(disturbance(&of(30_000, 400, 1), bulk) > 1.0);
    }

    #[test]
    fn requests_without_an_answer_are_rows_without_a_time() {
        let figure = figures::figure("requests").expect("a figure");
        let task = Task {
            figure,
            cell: figures::cells("requests", false).remove(0),
            seed: 1,
            contenders: Vec::new(),
        };
        let outcome = Outcome {
            requests: vec![Duration::from_millis(7); 3],
            ..Outcome::default()
        };
        let rows = rows(&task, contender("quinn").expect("one"), &outcome, 0, 1);
        let times: Vec<Option<f64>> = rows.iter().map(|row| row.ms).collect();
        assert_eq!(times.len(), figures::REQUESTS as usize);
        assert_eq!(times.iter().flatten().count(), 3);
    }
}
