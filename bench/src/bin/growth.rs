//! How the cost of a State update and of queries grows with Clients, Tabs, labels, VBuckets, Redis processes and Agents: a table
//! and two plots (SVG) for each, with the exponent that it may have and the one it has.
//!
//! The Server runs in this process, on real Redis processes; Agents are what they send. A count (allocations, bytes, commands) that grows
//! faster than it may is an error. Times are shown only: the machine has other work.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench prints its figures, and how far it is"
)]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use taba_bench::growth::{Costs, Deployment, Line, Measure, Size, exponent, plot};
use taba_bench::{CountingAllocator, now};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// An exponent may be larger than it should be by so much: what is constant and what is linear lie further apart.
const TOLERANCE: f64 = 0.25;

/// How costs grow with each of six sizes
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  growth                     some minutes\n  growth --quick             seconds\n  growth --full              the whole ranges: up to an hour, 4 GB\n  growth --axis tabs         one of the sizes"
)]
struct Cli {
    /// Small sizes
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// The largest sizes
    #[arg(long)]
    full: bool,
    /// Only these: clients, tabs, labels, vbuckets, redis, agents
    #[arg(long)]
    axis: Vec<String>,
    /// The directory of the plots
    #[arg(long, default_value = "target/growth")]
    out: PathBuf,
}

/// One size that grows while the others stay.
struct Axis {
    name: &'static str,
    base: Size,
    set: fn(&mut Size, usize),
    quick: &'static [usize],
    usual: &'static [usize],
    full: &'static [usize],
    /// What may grow, by the beginnings of work and quantity, and its exponent. All else should be constant.
    may: &'static [(&'static str, &'static str, f64)],
}

const BASE: Size = Size { clients: 10, tabs: 100, labels: 2, vbuckets: 64, redis: 1, agents: 1 };

const AXES: [Axis; 6] = [
    Axis {
        name: "clients",
        base: Size { tabs: 20, ..BASE },
        set: |size, clients| size.clients = clients,
        quick: &[1, 8, 64],
        usual: &[1, 10, 100, 1_000],
        full: &[1, 10, 100, 1_000, 10_000],
        // A Tab has a State of each.
        may: &[("one Tab", "", 1.0), ("an expression", "", 1.0)],
    },
    Axis {
        name: "tabs",
        base: Size { clients: 1, ..BASE },
        set: |size, tabs| size.tabs = tabs,
        quick: &[10, 100, 1_000],
        usual: &[10, 100, 1_000, 10_000, 100_000],
        full: &[10, 100, 1_000, 10_000, 100_000, 1_000_000],
        may: &[],
    },
    Axis {
        name: "labels",
        base: BASE,
        set: |size, labels| size.labels = labels,
        quick: &[1, 4, 16],
        usual: &[1, 2, 4, 8, 16, 32],
        full: &[1, 2, 4, 8, 16, 32],
        // A name is as long as its labels.
        may: &[("", "bytes", 1.0), ("one Tab", "", 1.0), ("an expression", "", 1.0)],
    },
    Axis {
        name: "vbuckets",
        base: Size { clients: 50, ..BASE },
        set: |size, vbuckets| size.vbuckets = vbuckets,
        quick: &[64, 128, 256],
        usual: &[64, 128, 256, 512, 1_024],
        full: &[64, 128, 256, 512, 1_024],
        // The same updates are in more commits, and what is of all Tabs is asked of each.
        may: &[("1,000", "", 1.0), ("one Tab", "", 0.0), ("", "", 1.0)],
    },
    Axis {
        name: "redis",
        base: Size { clients: 50, ..BASE },
        set: |size, redis| size.redis = redis,
        quick: &[1, 2, 4],
        usual: &[1, 2, 4, 8],
        full: &[1, 2, 4, 8],
        may: &[],
    },
    Axis {
        name: "agents",
        base: Size { clients: 300, ..BASE },
        set: |size, agents| size.agents = agents,
        quick: &[1, 8, 64],
        usual: &[1, 10, 100, 300],
        full: &[1, 3, 10, 30, 100, 300],
        // Each sends requests of its own, and has marks.
        may: &[("1,000", "bytes", 0.25)],
    },
];

impl Axis {
    fn may(&self, measure: Measure) -> f64 {
        let fits = |(work, quantity, _): &&(&str, &str, f64)| {
            measure.work.starts_with(work) && measure.quantity.starts_with(quantity)
        };
        self.may.iter().find(fits).map_or(0.0, |(_, _, exponent)| *exponent)
    }
}

/// One measure at all sizes of an axis.
struct Row {
    measure: Measure,
    points: Vec<(f64, f64)>,
    may: f64,
    has: f64,
}

impl Row {
    fn is_too_steep(&self) -> bool {
        self.measure.is_count() && self.has > self.may + TOLERANCE
    }

    fn figures(&self) -> String {
        let digits = |cost: f64| if cost < 100.0 { 1 } else { 0 };
        self.points.iter().map(|(_, cost)| format!("{cost:>11.*}", digits(*cost))).collect()
    }
}

fn measure(axis: &Axis, sizes: &[usize], cli: &Cli) -> Result<Vec<Row>, Box<dyn Error>> {
    let (updates, repeated) = if cli.quick { (2_000, 7) } else { (10_000, 9) };
    let mut all: Vec<(usize, Costs)> = Vec::new();
    for size in sizes {
        let (begin, mut of) = (now(), axis.base);
        (axis.set)(&mut of, *size);
        let runtime = tokio::runtime::Runtime::new()?;
        let costs = runtime.block_on(async {
            let mut deployment = Deployment::start(of).await;
            let costs = deployment.costs(updates, repeated).await;
            deployment.stop().await;
            costs
        });
        eprintln!("[{:.0?}] {} {size}", begin.elapsed(), axis.name);
        all.push((*size, costs));
    }
    let row = |place: usize| {
        let measure = all[0].1[place].0;
        let points: Vec<_> = all.iter().map(|(size, costs)| (*size as f64, costs[place].1)).collect();
        let (may, has) = (axis.may(measure), exponent(&points));
        Row { measure, points, may, has }
    };
    Ok((0..all[0].1.len()).map(row).collect())
}

fn print(axis: &Axis, sizes: &[usize], rows: &[Row]) {
    let head: String = sizes.iter().map(|size| format!("{size:>11}")).collect();
    println!("\n{:<46}{head}   may  has", axis.name);
    for row in rows {
        let name = format!("{}: {}", row.measure.work, row.measure.quantity);
        let verdict = if row.is_too_steep() { "  too steep" } else { "" };
        println!("{name:<46}{}  {:>4.1} {:>4.2}{verdict}", row.figures(), row.may, row.has);
    }
}

fn draw(axis: &Axis, rows: &[Row], cli: &Cli) -> Result<(), Box<dyn Error>> {
    let is_update = |row: &&Row| row.measure.work.starts_with("1,000");
    let (updates, queries): (Vec<_>, Vec<_>) = rows.iter().partition(is_update);
    for (what, rows) in [("updates", updates), ("queries", queries)] {
        let line = |row: &&Row| Line {
            name: format!(
                "{}: {}; may {:.1}, has {:.2}",
                row.measure.work, row.measure.quantity, row.may, row.has
            ),
            points: row.points.clone(),
        };
        let lines: Vec<Line> = rows.iter().map(line).collect();
        let file = cli.out.join(format!("{}-{what}.svg", axis.name));
        plot(&file, &format!("Cost of {what} by {}", axis.name), axis.name, &lines)?;
    }
    Ok(())
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let cli = Cli::parse();
    std::fs::create_dir_all(&cli.out)?;
    let mut steep = 0;
    for axis in
        AXES.iter().filter(|axis| cli.axis.is_empty() || cli.axis.iter().any(|name| name == axis.name))
    {
        let sizes = match (cli.quick, cli.full) {
            (true, _) => axis.quick,
            (_, true) => axis.full,
            _ => axis.usual,
        };
        let rows = measure(axis, sizes, &cli)?;
        print(axis, sizes, &rows);
        draw(axis, &rows, &cli)?;
        steep += rows.iter().filter(|row| row.is_too_steep()).count();
    }
    println!("\nplots: {}", cli.out.display());
    if steep > 0 {
        eprintln!("error: {steep} counts grow faster than they may by more than {TOLERANCE}");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
