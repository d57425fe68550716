//! The command line: what each command does, and how it is said.

mod lost;
mod moving;
mod show;
mod text;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};
use taba_core::{VBucket, VBuckets};
use taba_process::settings::{self, Program};
use taba_process::units::{parse_bytes, parse_time, time_text};
use taba_process::{EXIT_CODES, Exit, Log};
use taba_shard::census::CensusError;
use taba_shard::limits::{MOVE_LAG_MAX, MOVE_PAUSE_MAX, MOVES_PER_SHARD};
use taba_shard::migration::pace::Rates;
use taba_shard::mover::MoverOptions;
use taba_shard::shard_map::{ShardMap, ShardMapError};
use taba_shard::{Bootstrap, ConnectError, ShardName, ShardUrl, Shards, ShardsOptions, UrlError};

/// What the variables of this program begin with.
const PROGRAM: Program = Program::new(Some("TABA_SHARD_"), &[]);

type Outcome = Result<Exit, Box<dyn Error>>;

/// Grows, shrinks and looks after the Redis processes of a deployment, while servers use them.
#[derive(Debug, Parser)]
#[command(
    name = "taba-shard",
    version,
    about = "Grows, shrinks and looks after the Redis processes of a deployment, while servers use them.",
    after_help = EXIT_CODES,
    after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}")
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    settings: Config,
}

const EXAMPLES: &str = "Examples:
  taba-shard --redis redis://10.0.0.1:6379 status
  taba-shard add 10.0.0.2:6379 --dry-run      what would move, how large it is, how long it takes
  taba-shard add 10.0.0.2:6379                a new, empty Redis takes its share of the vbuckets
  taba-shard drain 10.0.0.1:6379 --remove     everything leaves it, then it is no shard any more
  taba-shard move 17 18 --to 10.0.0.2:6379
  taba-shard throttle --bytes 20MiB           also for what moves now
  taba-shard resume                           after a run was killed, or a shard failed
  taba-shard abort                            what is not yet switched goes back
  taba-shard reverse                          what the last run moved goes back
  taba-shard forget 10.0.0.2:6379             what the loss of this shard comes to; with --yes it is given up

A killed run leaves vbuckets that take no writes until resume or abort: run one of them at once.

While a shard does not answer, all commands go on with what it has no part in, say what they left, and end with code 1.";

/// Settings that all commands have.
#[derive(Args, Clone, Debug)]
struct Config {
    /// Redis primaries of the deployment, with commas between; any of them will do: redis://:PASSWORD@HOST:PORT
    ///
    /// The shard map names the others; they are signed in to as the first. A password on the command line is seen by every
    /// user of the machine; the variable or the file is a better place for it.
    ///
    /// A Redis Cluster (redis+cluster://HOST:PORT+HOST:PORT) moves its slots itself: only `init` is for it.
    #[arg(
        long, global = true, env = "TABA_SHARD_REDIS", value_name = "URL", hide_env_values = true, value_delimiter = ',',
        default_value = "redis://127.0.0.1:6379", value_parser = NonEmptyStringValueParser::new()
    )]
    redis: Vec<String>,

    /// Replicas that each Redis primary is deployed with; 0: those that are connected
    ///
    /// A move waits until so many have each step.
    #[arg(long, global = true, env = "TABA_SHARD_REDIS_REPLICAS", value_name = "COUNT", default_value_t = 0)]
    redis_replicas: usize,

    /// VBuckets that move from or to one shard at a time
    #[arg(long, global = true, env = "TABA_SHARD_PARALLEL", value_name = "COUNT", default_value_t = MOVES_PER_SHARD)]
    parallel: usize,

    /// Bytes that a replica may be behind while a move begins
    #[arg(long, global = true, env = "TABA_SHARD_LAG_MAX", value_name = "BYTES", value_parser = parse_bytes::<u64>, default_value = taba_core::bytes_text(MOVE_LAG_MAX))]
    lag_max: u64,

    /// How long the writes of a vbucket may be held, 3s at most; a move that takes longer is rolled back
    #[arg(long, global = true, env = "TABA_SHARD_PAUSE_MAX", value_name = "TIME", value_parser = parse_pause, default_value = time_text(MOVE_PAUSE_MAX))]
    pause_max: Duration,

    /// Print one JSON object instead of text
    #[arg(long, global = true, env = "TABA_SHARD_JSON")]
    json: bool,

    /// What to log: off, error, warn, info, debug, trace, or MODULE=LEVEL,…; RUST_LOG counts where this is not given
    /// [default: warn]
    #[arg(long, global = true, env = "TABA_SHARD_LOG", value_name = "FILTER", value_parser = NonEmptyStringValueParser::new())]
    log: Option<String>,

    /// A file of settings in TOML, by the names of the flags
    #[arg(long, global = true, env = "TABA_SHARD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print all settings and where each comes from, and end
    #[arg(long, global = true)]
    print_config: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a deployment on empty Redis processes: those of --redis
    Init {
        /// How many vbuckets: a power of two from 64 to 16384, for ever
        #[arg(long, value_name = "COUNT", default_value_t = 1024)]
        vbuckets: u32,
    },
    /// Shows the shards, what they hold, and what is unfinished
    Status,
    /// Shows what `rebalance` would move, how large it is, and how long it takes
    Plan,
    /// Makes an empty Redis a shard, and moves its share there; one that is drained is a shard like all others again
    Add {
        /// Where it is
        #[arg(value_name = "HOST:PORT")]
        address: String,
        /// Only make it a shard; `rebalance` moves its share later
        #[arg(long)]
        no_rebalance: bool,
        #[command(flatten)]
        dry: Dry,
    },
    /// Moves everything away from shards; `add` takes that back, but not --remove
    Drain {
        /// Their addresses or names, as `status` shows them; of several, none gets what another one gives away
        #[arg(value_name = "SHARD", required = true)]
        drained: Vec<String>,
        /// Take them out of the deployment when they are empty
        #[arg(long)]
        remove: bool,
        #[command(flatten)]
        dry: Dry,
    },
    /// Takes an empty shard out of the deployment
    Remove {
        /// Its address or name, as `status` shows them
        #[arg(value_name = "SHARD")]
        shard: String,
    },
    /// Gives up shards that are lost for good; without --yes shows what that comes to, and changes nothing
    ///
    /// They are taken out of the shard map. What was on its way to one of them is owned again by the shard that it came from, as
    /// it was when the move began. If one comes back, what it holds is an older copy, and nothing is sent to it. Of a shard that
    /// still runs somewhere, see to it first that it is off.
    Forget {
        /// Their addresses or names, as `status` shows them
        #[arg(value_name = "SHARD", required = true)]
        lost: Vec<String>,
        /// Make anew, empty, the vbuckets that only they had: what Agents still keep comes again, all else is lost
        #[arg(long)]
        recreate_empty: bool,
        /// Do it
        #[arg(long)]
        yes: bool,
    },
    /// Spreads the vbuckets evenly over the shards that are not draining
    Rebalance(Dry),
    /// Moves vbuckets to a shard
    Move {
        /// Their numbers
        #[arg(value_name = "VBUCKET", required = true, value_parser = vbucket_number)]
        vbuckets: Vec<u16>,
        /// Address or name of the shard
        #[arg(long, value_name = "SHARD")]
        to: String,
        #[command(flatten)]
        dry: Dry,
    },
    /// Goes on with what was left, until every vbucket is where the map wants it
    Resume(Dry),
    /// Rolls back what is not yet switched, and leaves everything where it is
    Abort,
    /// Moves back what the last run moved, or these vbuckets to where they came from
    Reverse {
        /// Their numbers
        #[arg(value_name = "VBUCKET", value_parser = vbucket_number)]
        vbuckets: Vec<u16>,
        #[command(flatten)]
        dry: Dry,
    },
    /// Checks that each vbucket has one owner and no copies, and that all shards have the same map
    Verify,
    /// Shows who moved what, when, how long its writes were held, and how large it was
    Log {
        /// How many lines
        #[arg(long, short = 'n', value_name = "LINES", default_value_t = 50)]
        lines: usize,
    },
    /// Sets how fast vbuckets may move, also for a run that is under way; shows it, without a rate
    Throttle {
        /// Bytes a second; 0: as fast as can be
        #[arg(long, value_name = "BYTES", value_parser = parse_bytes::<u64>)]
        bytes: Option<u64>,
        /// Moves a second that are begun; 0: as many as can be
        #[arg(long, value_name = "COUNT")]
        moves: Option<u64>,
    },
}

#[derive(Args, Clone, Copy, Debug)]
struct Dry {
    /// Show what would move, how large it is and how long it takes, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// `17` or `vb0017`.
fn vbucket_number(text: &str) -> Result<u16, std::num::ParseIntError> {
    text.strip_prefix("vb").unwrap_or(text).parse()
}

/// A VBucket that is named is none of the deployment.
#[derive(Debug, thiserror::Error)]
#[error("there is no vbucket {number}: the deployment has {count}, from 0")]
struct NoVBucket {
    number: u16,
    count: u16,
}

/// A command that cannot be done.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("VBuckets cannot be {0}: a power of two from 64 to 16384")]
    VBuckets(u32),
    #[error("the shards hold a deployment already; taba-shard status shows it")]
    Initialized,
    #[error("the log of moves has nothing to reverse")]
    NothingToReverse,
    #[error(
        "{0} holds keys that were written with taba-shard's Data, which do not move with their vbuckets: \
         keep those in Redis processes of their own"
    )]
    HoldsData(String),
    #[error("{0} is draining, so everything would leave it again: taba-shard add {0} takes that back")]
    Draining(String),
    #[error("the deployment has no shard map yet; taba-shard rebalance makes one")]
    NoMap,
}

/// Runs the tool.
pub(crate) fn run(log: &Log) -> Exit {
    let loaded = settings::load::<Cli>(&PROGRAM, std::env::args_os(), std::env::vars_os());
    let loaded = match loaded.and_then(|loaded| Ok((loaded.filter("warn")?, loaded))) {
        Ok((filter, loaded)) => {
            if loaded.settings.settings.print_config {
                return loaded.print(log);
            }
            log.subscribe(filter);
            loaded
        }
        Err(error) => return error.end(log),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return log.fail(Exit::Failed, &error),
    };
    let cli = &loaded.settings;
    runtime
        .block_on(cli.settings.run(&cli.command, log))
        .unwrap_or_else(|error| log.fail(exit_of(&*error), &*error))
}

/// A wrong URL is a wrong setting, whoever finds it.
fn exit_of(error: &(dyn Error + 'static)) -> Exit {
    let is_wrong = |error: &ConnectError| matches!(error, ConnectError::ClusterAmong { .. });
    let is_setting = error.is::<UrlError>() || error.downcast_ref().is_some_and(is_wrong);
    if is_setting { Exit::Usage } else { Exit::Failed }
}

impl Config {
    async fn run(&self, command: &Command, log: &Log) -> Outcome {
        if let Command::Init { vbuckets } = command {
            return self.init(*vbuckets).await;
        }
        let shards = self.connect().await?;
        if shards.is_cluster() {
            return Err(ConnectError::ClusterMoves.into());
        }
        match command {
            Command::Init { .. } => Ok(Exit::Clean),
            Command::Status => show::status(self, &shards).await,
            Command::Plan => {
                let map = moving::map(&shards).await?.balanced()?;
                moving::plan(self, &shards, &map).await
            }
            Command::Add { address, no_rebalance, dry } => {
                self.add(&shards, address, *no_rebalance, *dry, log).await
            }
            Command::Drain { drained, remove, dry } => self.drain(&shards, drained, *remove, *dry, log).await,
            Command::Remove { shard } => {
                let name = moving::map(&shards).await?.find(shard)?.name;
                shards.remove_shard(name).await?;
                text::line(
                    self,
                    &format!(
                        "shard {name} is no shard any more: leave it out of the settings of the servers"
                    ),
                )
            }
            Command::Forget { lost, recreate_empty, yes } => {
                lost::forget(self, &shards, lost, *recreate_empty, *yes).await
            }
            Command::Rebalance(dry) => self.change(&shards, *dry, log, ShardMap::balanced).await,
            Command::Move { vbuckets, to, dry } => {
                let map = moving::map(&shards).await?;
                let shard = map.find(to)?;
                if shard.is_draining {
                    return Err(CommandError::Draining(shard.address.clone()).into());
                }
                let name = shard.name;
                let owners = self.numbered(&shards, vbuckets)?.into_iter().map(|vbucket| (vbucket, name));
                self.change(&shards, *dry, log, |map| map.with_owners(owners)).await
            }
            Command::Resume(dry) => self.resume(&shards, *dry, log).await,
            Command::Abort => moving::abort(self, &shards, log).await,
            Command::Reverse { vbuckets, dry } => {
                let back = moving::back(&shards, &self.numbered(&shards, vbuckets)?).await?;
                if back.is_empty() {
                    return Err(CommandError::NothingToReverse.into());
                }
                self.change(&shards, *dry, log, |map| map.with_owners(back)).await
            }
            Command::Verify => show::verify(self, &shards).await,
            Command::Log { lines } => show::log(self, &shards, *lines).await,
            Command::Throttle { bytes, moves } => {
                let set = shards.mover_rates().await?;
                if bytes.is_none() && moves.is_none() {
                    return show::rates(self, set);
                }
                let set = set.unwrap_or_default();
                // What is not named stays.
                let rate =
                    |new: Option<u64>, old| new.map_or(old, |rate: u64| Some(rate).filter(|rate| *rate > 0));
                let rates = Rates { bytes: rate(*bytes, set.bytes), moves: rate(*moves, set.moves) };
                shards.set_mover_rates(rates).await?;
                text::line(self, "the rates are set; a run that is under way follows within a second")
            }
        }
    }

    fn options(&self, vbuckets: VBuckets) -> ShardsOptions {
        let mut options = ShardsOptions::default();
        options.vbuckets = vbuckets;
        options.stability.replicas = self.redis_replicas;
        options
    }

    fn urls(&self) -> Result<Vec<ShardUrl>, Box<dyn Error>> {
        Ok(self.redis.iter().map(|url| ShardUrl::new(url.trim())).collect::<Result<_, _>>()?)
    }

    async fn connect(&self) -> Result<Shards, Box<dyn Error>> {
        let connected = Shards::connect(self.urls()?, self.options(VBuckets::default())).await;
        match connected {
            // The tool takes the number that the deployment has.
            Err(ConnectError::Census(CensusError::VBuckets { found, .. })) => {
                let vbuckets = VBuckets::new(found.into())?;
                Ok(Shards::connect(self.urls()?, self.options(vbuckets)).await?)
            }
            connected => Ok(connected?),
        }
    }

    async fn init(&self, vbuckets: u32) -> Outcome {
        let vbuckets = VBuckets::new(vbuckets).map_err(|_| CommandError::VBuckets(vbuckets))?;
        match Shards::connect(self.urls()?, self.options(vbuckets)).await {
            Ok(_) => return Err(CommandError::Initialized.into()),
            Err(ConnectError::Empty) => {}
            Err(error) => return Err(error.into()),
        }
        let mut options = self.options(vbuckets);
        options.bootstrap = Bootstrap::IfEmpty;
        let shards = Shards::connect(self.urls()?, options).await?;
        if shards.is_cluster() {
            let deployment = shards.view().deployment();
            return text::line(
                self,
                &format!(
                    "deployment {:016x}, {} vbuckets, in a redis cluster",
                    deployment.id, deployment.vbuckets
                ),
            );
        }
        show::status(self, &shards).await
    }

    /// The VBuckets of these numbers.
    fn numbered(&self, shards: &Shards, numbers: &[u16]) -> Result<Vec<VBucket>, NoVBucket> {
        let count = shards.vbuckets().count();
        let of = |number: &u16| shards.vbuckets().get(*number).ok_or(NoVBucket { number: *number, count });
        numbers.iter().map(of).collect()
    }

    /// Changes the map, and moves what is not where the new one wants it.
    async fn change(
        &self,
        shards: &Shards,
        dry: Dry,
        log: &Log,
        change: impl FnOnce(&ShardMap) -> Result<ShardMap, ShardMapError>,
    ) -> Outcome {
        refuse_data(shards).await?;
        let silent = shards.survey().await?.silent_names();
        if dry.dry_run {
            let map = moving::map(shards).await?;
            return moving::plan(self, shards, &change(&map)?.leaving_alone(&silent, &map)?).await;
        }
        shards.change_map_beside(&silent, change).await?;
        moving::settle(self, shards, log).await
    }

    /// Moves what is not where the map wants it.
    async fn resume(&self, shards: &Shards, dry: Dry, log: &Log) -> Outcome {
        refuse_data(shards).await?;
        if dry.dry_run {
            return moving::plan(self, shards, &*moving::map(shards).await?).await;
        }
        moving::settle(self, shards, log).await
    }

    async fn add(&self, shards: &Shards, address: &str, only: bool, dry: Dry, log: &Log) -> Outcome {
        if dry.dry_run {
            let entry = shards.examine(address).await?;
            return moving::plan(self, shards, &moving::map(shards).await?.with_shard(entry)?.balanced()?)
                .await;
        }
        refuse_data(shards).await?;
        let (name, _) = shards.add_shard(address).await?;
        if only {
            return text::line(
                self,
                &format!("shard {name} at {address} is a shard now, and owns nothing yet"),
            );
        }
        self.change(shards, dry, log, ShardMap::balanced).await
    }

    async fn drain(&self, shards: &Shards, drained: &[String], remove: bool, dry: Dry, log: &Log) -> Outcome {
        let map = moving::map(shards).await?;
        let names = drained.iter().map(|shard| Ok(map.find(shard)?.name));
        let names = names.collect::<Result<Vec<ShardName>, ShardMapError>>()?;
        let drain = |map: &ShardMap| {
            let drained = names.iter().try_fold(map.clone(), |map, name| map.with_draining(*name, true))?;
            drained.balanced()
        };
        let exit = self.change(shards, dry, log, drain).await?;
        if remove && !dry.dry_run && exit == Exit::Clean {
            for name in &names {
                shards.remove_shard(*name).await?;
            }
        }
        Ok(exit)
    }

    fn mover_options(&self, silent: Vec<ShardName>) -> MoverOptions {
        let mut options = MoverOptions::by(text::operator());
        options.silent = silent;
        options.parallel = self.parallel;
        options.lag_max = self.lag_max;
        options.pause_max = self.pause_max;
        options
    }
}

/// A time for which writes may be held: what Servers wait for after they have connected anew is no longer.
fn parse_pause(text: &str) -> Result<Duration, Box<dyn Error + Send + Sync>> {
    let pause = parse_time(text)?;
    let most = time_text(MOVE_PAUSE_MAX);
    if pause > MOVE_PAUSE_MAX { Err(format!("more than {most}, the most").into()) } else { Ok(pause) }
}

/// Keys of `Data` do not move: nothing is moved from under them.
async fn refuse_data(shards: &Shards) -> Result<(), Box<dyn Error>> {
    match shards.with_data().await?.pop() {
        Some(label) => Err(CommandError::HoldsData(label).into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_wrong_url_is_a_wrong_setting() {
        let url = ShardUrl::new("redis+cluster://a,b").unwrap_err();
        assert_eq!(exit_of(&url), Exit::Usage);
        assert_eq!(exit_of(&ConnectError::ClusterAmong { shards: 2 }), Exit::Usage);
        assert_eq!(exit_of(&ConnectError::Empty), Exit::Failed);
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        assert_eq!(vbucket_number("vb0017"), Ok(17));
        assert!(vbucket_number("x").is_err() && vbucket_number("70000").is_err());
    }
}
