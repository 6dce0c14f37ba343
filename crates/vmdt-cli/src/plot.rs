//! Statistics as a picture: rate, congestion window, round trip and loss over time.

use std::fmt::Write as _;

use crate::text::octets;
use crate::xfer::tally::Sample;

const WIDTH: f64 = 800.0;
const PANEL: f64 = 150.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 30.0;
const GAP: f64 = 40.0;

struct Panel {
    title: &'static str,
    color: &'static str,
    value: fn(&Sample) -> f64,
    label: fn(f64) -> String,
}

/// The picture as SVG. Needs two samples to show anything.
pub(crate) fn svg(samples: &[Sample]) -> String {
    let panels = [
        Panel {
            title: "rate",
            color: "#0a7",
            value: |s| s.rate,
            label: |v| format!("{}/s", octets(v as u64)),
        },
        Panel {
            title: "congestion window",
            color: "#05c",
            value: |s| s.cwnd as f64,
            label: |v| octets(v as u64),
        },
        Panel {
            title: "round trip",
            color: "#a50",
            value: |s| s.rtt_ms,
            label: |v| format!("{v:.1} ms"),
        },
        Panel {
            title: "datagrams lost",
            color: "#c03",
            value: |s| s.lost as f64,
            label: |v| format!("{v:.0}"),
        },
    ];
    let height = TOP + panels.len() as f64 * (PANEL + GAP);
    let end = samples.last().map_or(1.0, |s| s.seconds).max(1e-3);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for (number, panel) in panels.iter().enumerate() {
        let top = TOP + number as f64 * (PANEL + GAP);
        let highest = samples.iter().map(panel.value).fold(0.0, f64::max);
        let scale = if highest > 0.0 { highest } else { 1.0 };
        let width = WIDTH - LEFT - RIGHT;
        let mut points = String::new();
        for sample in samples {
            let x = LEFT + sample.seconds / end * width;
            let y = top + PANEL - (panel.value)(sample) / scale * PANEL;
            let _ = write!(points, "{x:.1},{y:.1} ");
        }
        let bottom = top + PANEL;
        let _ = write!(
            out,
            "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{}</text>\n\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n\
             <text x=\"{}\" y=\"{bottom}\" text-anchor=\"end\">0</text>\n\
             <path d=\"M{LEFT} {top}V{bottom}H{}\" fill=\"none\" stroke=\"#999\"/>\n\
             <polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>\n",
            top - 8.0,
            panel.title,
            LEFT - 6.0,
            top + 10.0,
            (panel.label)(highest),
            LEFT - 6.0,
            WIDTH - RIGHT,
            points.trim_end(),
            panel.color,
        );
    }
    let _ = write!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{end:.1} s</text>\n</svg>\n",
        WIDTH - RIGHT,
        height - GAP + 16.0
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_curves_stay_within_the_picture() {
        let samples: Vec<Sample> = (0..10)
            .map(|i| Sample {
                seconds: f64::from(i),
                rate: f64::from(i * 100),
                cwnd: 14_720,
                ..Sample::default()
            })
            .collect();
        let text = svg(&samples);
        assert_eq!(text.matches("<polyline").count(), 4);
        for point in text
            .split("points=\"")
            .skip(1)
            .flat_map(|p| p.split('"').next().unwrap().split(' '))
        {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!(
                (0.0..=WIDTH).contains(&x) && (0.0..=TOP + 4.0 * (PANEL + GAP)).contains(&y),
                "{point}"
            );
        }
        assert!(!text.contains("NaN"));
    }
}
