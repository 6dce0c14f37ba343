//! A file through a whole cluster, as the `file_transfer` example does it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::fs;

use tempfile::TempDir;
use vmdt_examples::demo::{self, Demo, Step};
use vmdt_node::Carrier;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generated_file_arrives_through_loss_and_is_cleaned_up() {
    let demo = Demo {
        size: 700_001,
        ..Demo::default()
    };
    let mut told = 0;
    let mut source = None;
    let summary = demo::run(&demo, |step| match step {
        Step::Ready {
            nodes, file, size, ..
        } => {
            assert_eq!((nodes.len(), size), (5, 700_001));
            source = Some(file.to_owned());
        }
        Step::Progress(progress) => told = progress.delivered,
    })
    .await
    .unwrap();
    assert!(summary.is_same(), "{summary}");
    assert_eq!(summary.receipt.octets, 700_001);
    assert!(told <= 700_001);
    // Which members are worth it is a matter of their pace; that none of them has k is not.
    let paths = summary.receipt.paths();
    assert!(paths.len() >= 2, "more than one carrier: {summary}");
    let all: u64 = paths.values().map(|carried| carried.shares).sum();
    let most = paths
        .iter()
        .filter(|(carrier, _)| **carrier != Carrier::Direct)
        .map(|(_, carried)| carried.shares);
    assert!(
        most.max().unwrap_or(0) * 3 <= all * 2,
        "k - 1 of k shares at most: {summary}"
    );
    assert!(
        !summary.receipt.paths().contains_key(&Carrier::Server),
        "direct paths work: {summary}"
    );
    assert!(
        summary.datagrams.iter().map(|d| d.dropped).sum::<u64>() > 0,
        "{summary}"
    );
    assert!(
        !source.unwrap().exists() && !summary.path.exists(),
        "temporary files are removed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_given_file_is_left_alone_and_the_received_one_is_kept() {
    let dir = TempDir::new().unwrap();
    let (path, out) = (dir.path().join("a name.txt"), dir.path().join("out"));
    let demo = Demo {
        path: Some(path.clone()),
        out: Some(out.clone()),
        nodes: 3,
        k: 2,
        ..Demo::default()
    };
    for (content, name) in [(&b"some text"[..], "a name.txt"), (b"", "a name (1).txt")] {
        fs::write(&path, content).unwrap();
        let summary = demo::run(&demo, |_| {}).await.unwrap();
        assert!(summary.is_same() && summary.kept, "{summary}");
        assert_eq!(summary.path, out.join(name));
        assert_eq!(fs::read(&summary.path).unwrap(), content);
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let demo = Demo {
        path: Some("no/such/file".into()),
        ..Demo::default()
    };
    let error = demo::run(&demo, |_| {}).await.unwrap_err();
    assert!(format!("{error:#}").contains("no/such/file"), "{error:#}");
}

#[tokio::test]
async fn more_shares_than_nodes_are_refused() {
    let error = demo::run(
        &Demo {
            nodes: 2,
            k: 3,
            ..Demo::default()
        },
        |_| {},
    )
    .await
    .unwrap_err();
    assert!(error.to_string().contains("k = 3"), "{error}");
}
