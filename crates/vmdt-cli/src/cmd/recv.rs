//! `vmdt recv`

use serde_json::json;

use crate::cli::RecvArgs;
use crate::clock::{now, unix_seconds};
use crate::failure::{Exit, Failure, Outcome};
use crate::net::link::Link;
use crate::net::mode::Mode;
use crate::out::Out;
use crate::rendezvous::Purpose;
use crate::rendezvous::entrance::Given;
use crate::settings::Settings;
use crate::state::Receipt;
use crate::stats::Stats;
use crate::stop;
use crate::text::{octets, printable, rate};
use crate::xfer::receiver::{Received, Session};
use crate::xfer::sink::Target;
use crate::xfer::staging::Taken;
use crate::xfer::tally::{Tally, paths_json};

/// Receives what the code stands for.
pub(crate) async fn run(args: RecvArgs, settings: &Settings, out: &Out) -> Outcome<()> {
    stop::listen();
    let mut out = out.clone();
    let target = match args.out.as_deref() {
        Some(path) if path.as_os_str() == "-" => {
            out.take_stdout();
            Target::Stdout
        }
        folder => Target::Folder {
            folder: folder.map_or_else(|| settings.downloads(), ToOwned::to_owned),
            taken: match (args.overwrite, args.rename) {
                (true, _) => Taken::Overwrite,
                (_, true) => Taken::Rename,
                _ => Taken::Compare,
            },
        },
    };
    let mode = Mode::resolve(&args.mode, settings)?;
    let text = match &args.code {
        Some(code) => code.clone(),
        None => ask_for_code(&out).await?,
    };
    let given: Given = text.parse()?;
    let receiving = Receiving {
        args: &args,
        settings,
        out: &out,
        given,
        mode,
        target,
    };
    receiving.run().await
}

/// Reads the code on a thread of its own, so that Ctrl-C is heard meanwhile.
async fn ask_for_code(out: &Out) -> Outcome<String> {
    let out = out.clone();
    let asking = tokio::task::spawn_blocking(move || out.ask("Code:"));
    stop::unless(async {
        asking
            .await
            .map_err(|_| Failure::failed("no code could be read"))?
    })
    .await
}

struct Receiving<'a> {
    args: &'a RecvArgs,
    settings: &'a Settings,
    out: &'a Out,
    given: Given,
    mode: Mode,
    target: Target,
}

impl Receiving<'_> {
    /// Receives, beginning again as long as a sender that vanished comes back in time.
    async fn run(&self) -> Outcome<()> {
        let tally = Tally::new(self.out, "receiving");
        let mut agreed = false;
        let mut vanished: Option<Failure> = None;
        loop {
            let (before, since) = (tally.summary().0, now());
            let attempt = self.attempt(&tally, &mut agreed).await;
            tally.clear();
            match attempt {
                Ok(received) => return self.tell(received, &tally),
                Err(failure) if failure.exit == Exit::Vanished => {
                    let (done, ..) = tally.summary();
                    self.out.event(
                        "vanished",
                        json!({ "octets": done, "message": failure.message }),
                    );
                    // behind a code somebody is looked for that long; a ticket leads to a server
                    // that is there in any case
                    let in_vain = matches!(self.given, Given::Ticket(_))
                        && done == before
                        && now().saturating_duration_since(since) > self.args.wait;
                    let once = self.args.wait.is_zero() || matches!(self.target, Target::Stdout);
                    if once || in_vain {
                        return Err(again(failure));
                    }
                    self.out.say(format!(
                        "{}; looking for it for {} s",
                        printable(&failure.message),
                        self.args.wait.as_secs()
                    ));
                    vanished = Some(failure);
                }
                // it did not come back
                Err(failure) => {
                    return Err(match (vanished, failure.exit) {
                        (Some(first), Exit::NotFound | Exit::WrongCode) => again(first),
                        _ => failure,
                    });
                }
            }
        }
    }

    async fn attempt(&self, tally: &Tally, agreed: &mut bool) -> Outcome<Received> {
        let search = super::search(self.settings, self.args.wait);
        let entering = self.given.enter(Purpose::Transfer, &search, self.settings);
        let entrance = stop::unless(entering).await?;
        let peer = entrance.from;
        let token = entrance
            .token
            .ok_or_else(|| Failure::new(Exit::Corrupt, "the invitation holds no token"))?;
        let mut node = entrance.node(self.settings)?;
        node.mode = Some(self.mode.clone());
        node.for_transfer(self.settings);
        let by_code = matches!(self.given, Given::Code(_));
        let mut link = stop::unless(Link::open(&node, &entrance.membership))
            .await
            .map_err(|mut failure| {
                // its server has gone with the sender
                if by_code && matches!(failure.exit, Exit::NotFound | Exit::Refused) {
                    failure.exit = Exit::Vanished;
                }
                // the next attempt asks for the code's meaning anew
                entrance.forget();
                failure
            })?;
        let patience = node.stall + node.stall / 2;
        let session = Session {
            link: &mut link,
            peer,
            token,
            target: &self.target,
            out: self.out,
            tally,
            patience,
            agreed,
        };
        let result = session.run().await;
        self.receipt(&link, peer.as_str(), tally, &result).await;
        if result.is_ok() {
            entrance.forget();
            link.settle().await;
        }
        link.close().await;
        result
    }

    async fn receipt(&self, link: &Link, peer: &str, tally: &Tally, result: &Outcome<Received>) {
        let (octets, same, paths, took) = tally.summary();
        let status = link.status().await.ok();
        let called = link.names().await;
        let names = result.as_ref().map_or_else(
            |_| Vec::new(),
            |r| {
                r.entries
                    .iter()
                    .filter(|e| e.path.len() == 1)
                    .map(|e| e.display())
                    .collect()
            },
        );
        Receipt {
            id: crate::random::<8>().map_or_else(|_| String::new(), |id| crate::text::hex(&id)),
            when: unix_seconds(),
            direction: "received".into(),
            peer: peer.to_owned(),
            names,
            octets,
            same,
            seconds: took.as_secs_f64(),
            k: status.as_ref().map_or(0, |s| s.k),
            n: status.as_ref().map_or(0, |s| s.n),
            paths,
            name: peer
                .parse()
                .ok()
                .and_then(|peer| called.name(peer).map(str::to_owned)),
            sealed: !link.is_open(),
            error: result.as_ref().err().map(|failure| failure.message.clone()),
        }
        .keep();
    }

    /// Says what stands where.
    fn tell(&self, received: Received, tally: &Tally) -> Outcome<()> {
        let out = self.out;
        let (done, same, paths, took) = tally.summary();
        let saved = received.saved;
        for note in &saved.notes {
            out.say(printable(note));
        }
        let lossy = |list: &[std::path::PathBuf]| -> Vec<String> {
            list.iter()
                .map(|path| path.strip_prefix(".").unwrap_or(path))
                .map(|path| path.to_string_lossy().into_owned())
                .collect()
        };
        let (new, already) = (lossy(&saved.paths), lossy(&saved.already));
        for path in &already {
            out.say(format!("{} was there already, the same", printable(path)));
        }
        for path in new.iter().chain(&already) {
            out.result(printable(path))?;
        }
        if let Some(text) = &saved.text {
            out.foreign_text(text)?;
        }
        if done > same {
            let known = if same > 0 {
                format!(" ({} were there already)", octets(same))
            } else {
                String::new()
            };
            out.say(format!(
                "received {} in {:.1} s, {}{known}",
                octets(done),
                took.as_secs_f64(),
                rate(done - same, took)
            ));
            out.say(super::carriers(&paths));
        }
        out.event(
            "done",
            json!({ "octets": done, "already": same, "seconds": took.as_secs_f64(), "saved": new,
                    "same": already, "text": saved.text, "notes": saved.notes, "paths": paths_json(&paths) }),
        );
        match &self.args.stats {
            Some(file) => Stats::of(tally, "received", &self.mode.name.to_string()).write(file),
            None => Ok(()),
        }
    }
}

fn again(failure: Failure) -> Failure {
    failure.hint("run the same command again when the sender is back: it continues where it was")
}
