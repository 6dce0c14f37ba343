//! Commands that need no network: settings, receipts, statistics, completions, manual pages.

use std::collections::BTreeMap;
use std::fs;

use clap::CommandFactory as _;
use serde_json::json;

use crate::cli::{Cli, CompletionsArgs, ConfigArgs, ExplainArgs, ManArgs, PlotArgs, ReceiptsArgs};
use crate::clock::date;
use crate::failure::{Exit, Failure, Outcome};
use crate::net::who;
use crate::out::Out;
use crate::plot;
use crate::settings::{KEYS, Settings};
use crate::state::{Receipt, receipts};
use crate::stats::Stats;
use crate::text::{octets, printable, table};

/// `vmdt id`
pub(crate) fn id(settings: &Settings, out: &Out) -> Outcome<()> {
    let path = who::file(settings).ok_or_else(|| {
        Failure::usage("there is no identity: `identity` is `none`, so every run has another one")
    })?;
    let identity = who::load(&path)?;
    let id = identity.node_id();
    let shown = path.to_string_lossy();
    out.event(
        "id",
        json!({ "id": id.as_str(), "name": settings.text("name"), "file": shown }),
    );
    out.result(id.as_str())?;
    out.say(format!("the key is in {}", printable(&shown)));
    Ok(())
}

/// `vmdt config`
pub(crate) fn config(args: &ConfigArgs, settings: &Settings, out: &Out) -> Outcome<()> {
    if args.path {
        return out.result(settings.file.to_string_lossy());
    }
    if let Some(name) = &args.name {
        if !KEYS.iter().any(|key| key.name == name) {
            return Err(Failure::usage(format!("there is no setting {name:?}"))
                .hint("`vmdt config` lists them"));
        }
        return out.result(printable(settings.text(name)));
    }
    let mut rows = Vec::new();
    for key in KEYS {
        let (value, source) = settings.entry(key.name);
        out.event(
            "setting",
            json!({ "name": key.name, "value": value, "source": source.word(), "default": key.default, "about": key.about }),
        );
        rows.push(format!(
            "{:<22} = {:<16} # {} ({})",
            key.name,
            printable(&format!("{value:?}")),
            key.about,
            source.word()
        ));
    }
    out.result(format!(
        "# {}\n{}",
        printable(&settings.file.to_string_lossy()),
        rows.join("\n")
    ))
}

/// `vmdt receipts`
pub(crate) fn list_receipts(args: &ReceiptsArgs, out: &Out) -> Outcome<()> {
    let mut rows = Vec::new();
    for receipt in receipts().iter().rev().take(args.limit) {
        out.event(
            "receipt",
            serde_json::to_value(receipt).map_err(Failure::failed)?,
        );
        let how = receipt.error.as_ref().map_or("done", |_| "failed");
        rows.push(vec![
            receipt.id.clone(),
            date(receipt.when),
            receipt.direction.clone(),
            receipt.peer.clone(),
            octets(receipt.octets),
            how.into(),
            receipt.names.join(", "),
        ]);
    }
    if rows.is_empty() {
        out.say("no transfers yet");
        return Ok(());
    }
    for row in &mut rows {
        for cell in row {
            *cell = printable(cell);
        }
    }
    out.result(table(&rows).trim_end())
}

/// `vmdt explain`
pub(crate) fn explain(args: &ExplainArgs, out: &Out) -> Outcome<()> {
    let all = receipts();
    let wanted = args.transfer.as_deref().unwrap_or_default();
    let Some(receipt) = all
        .iter()
        .rev()
        .find(|receipt| receipt.id.starts_with(wanted))
    else {
        return Err(Failure::new(
            Exit::NotFound,
            format!("no transfer {wanted:?} is known here"),
        )
        .hint("`vmdt receipts` lists those that are"));
    };
    out.event(
        "receipt",
        serde_json::to_value(receipt).map_err(Failure::failed)?,
    );
    for line in explained(receipt) {
        out.result(printable(&line))?;
    }
    Ok(())
}

/// How a transfer travelled, in sentences.
fn explained(receipt: &Receipt) -> Vec<String> {
    let towards = if receipt.direction == "sent" {
        "to"
    } else {
        "from"
    };
    let mut lines = vec![format!(
        "{} {} {towards} {} on {} UTC: {} in {:.1} s{}",
        receipt.direction,
        receipt.names.join(", "),
        match &receipt.name {
            Some(name) => format!("{name} ({})", receipt.peer),
            None => receipt.peer.clone(),
        },
        date(receipt.when),
        octets(receipt.octets),
        receipt.seconds,
        if receipt.same > 0 {
            format!(", of which {} were there already", octets(receipt.same))
        } else {
            String::new()
        },
    )];
    if let Some(error) = &receipt.error {
        lines.push(format!("it failed: {error}"));
    }
    if receipt.k > 0 {
        lines.push(format!(
            "every message was cut into {} shares; any {} rebuild it, fewer say nothing but its length",
            receipt.n, receipt.k
        ));
    }
    let all: u64 = receipt.paths.values().map(|(_, octets)| octets).sum();
    for (name, (shares, carried)) in &receipt.paths {
        lines.push(format!(
            "  {name}: {shares} shares, {} ({}%)",
            octets(*carried),
            carried * 100 / all.max(1)
        ));
    }
    if receipt.sealed {
        lines.push(
            "sealed to the receiver's key: nobody on the way could read it, not even all of them together".into(),
        );
    } else {
        if receipt.paths.len() > 1 {
            lines.push(format!(
                "no one of these carried {} shares of a message, so no one of them could read it alone",
                receipt.k.max(2)
            ));
        }
        lines.push(
            "profile 1.0: whoever sees the traffic of the receiver's own line could read it".into(),
        );
    }
    lines
}

/// `vmdt peers`
pub(crate) fn peers(out: &Out) -> Outcome<()> {
    let mut known: BTreeMap<String, (u64, u64, u64, u64)> = BTreeMap::new();
    for receipt in receipts() {
        let entry = known.entry(receipt.peer).or_default();
        if receipt.error.is_none() {
            entry.0 += 1
        } else {
            entry.1 += 1
        }
        entry.2 += receipt.octets;
        entry.3 = entry.3.max(receipt.when);
    }
    if known.is_empty() {
        out.say("no peers yet: they are remembered after a transfer");
        return Ok(());
    }
    let mut rows = vec![
        [
            "peer",
            "reliability",
            "good",
            "failed",
            "octets",
            "last seen",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for (peer, (good, failed, moved, seen)) in known {
        let score = reliability(good, failed);
        out.event(
            "peer",
            json!({ "peer": peer, "reliability": score, "good": good, "failed": failed, "octets": moved, "seen": seen }),
        );
        rows.push(vec![
            printable(&peer),
            format!("{score:.2}"),
            good.to_string(),
            failed.to_string(),
            octets(moved),
            date(seen),
        ]);
    }
    out.result(table(&rows).trim_end())
}

/// From 0 to 1: the share of transfers that went well, one unknown transfer of each kind added, so
/// that little experience stays near one half.
pub(crate) fn reliability(good: u64, failed: u64) -> f64 {
    (good as f64 + 1.0) / ((good + failed) as f64 + 2.0)
}

/// `vmdt plot`
pub(crate) fn plot(args: &PlotArgs, out: &Out) -> Outcome<()> {
    let samples = Stats::read(&args.file)?;
    if samples.len() < 2 {
        return Err(Failure::usage(format!(
            "{} holds too few samples to draw",
            args.file.display()
        )));
    }
    let svg = plot::svg(&samples);
    let target = args
        .out
        .clone()
        .unwrap_or_else(|| args.file.with_extension("svg"));
    if target.as_os_str() == "-" {
        return out.raw(&svg);
    }
    fs::write(&target, svg).map_err(|e| Failure::disk(&e, "writing", &target))?;
    out.event("plot", json!({ "path": target.to_string_lossy() }));
    out.result(printable(&target.to_string_lossy()))
}

/// `vmdt completions`
pub(crate) fn completions(args: &CompletionsArgs, out: &Out) -> Outcome<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "vmdt", &mut script);
    out.raw(&String::from_utf8_lossy(&script))
}

/// `vmdt man`
pub(crate) fn man(args: &ManArgs, out: &Out) -> Outcome<()> {
    let mut command = Cli::command();
    command.build();
    if let Some(folder) = &args.out {
        fs::create_dir_all(folder).map_err(|e| Failure::disk(&e, "making", folder))?;
        clap_mangen::generate_to(command, folder)
            .map_err(|e| Failure::disk(&e, "writing", folder))?;
        return out.result(printable(&folder.to_string_lossy()));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(Failure::failed)?;
    out.raw(&String::from_utf8_lossy(&page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reliability_follows_experience() {
        assert_eq!(reliability(0, 0), 0.5);
        assert!(reliability(9, 0) > 0.9 && reliability(0, 9) < 0.1);
    }

    #[test]
    fn an_explanation_names_the_numbers_and_who_carried_what() {
        let receipt = Receipt {
            id: "ab".into(),
            when: 0,
            direction: "sent".into(),
            peer: "bob".into(),
            names: vec!["x".into()],
            octets: 1000,
            same: 0,
            seconds: 1.0,
            k: 2,
            n: 3,
            paths: [
                ("direct".to_owned(), (1, 500)),
                ("via the server".to_owned(), (1, 500)),
            ]
            .into(),
            name: Some("robert".into()),
            sealed: true,
            error: None,
        };
        let text = explained(&receipt).join("\n");
        assert!(
            text.contains("3 shares; any 2")
                && text.contains("robert (bob)")
                && text.contains("sealed to the receiver's key")
                && text.contains("direct: 1 shares, 500 B (50%)"),
            "{text}"
        );
    }
}
