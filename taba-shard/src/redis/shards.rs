//! [`Shards`]: several Redis processes as one: which shard owns which VBucket, and the connection to each.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use redis::{Cmd, cmd};
use taba_core::{Remedy, VBucket, VBuckets, Version};

use super::clock::{monotonic, random};
use super::error::{ConnectError, LinkError};
use super::link::ShardLink;
use super::options::{Bootstrap, ShardsOptions};
use super::scripts;
use super::topology::{StaticTopology, Topology};
use super::url::ShardUrl;
use crate::census::{Census, CensusError, CensusOutcome, HeldVBucket, Location, Owner, View};
use crate::command::Reply;
use crate::keys;
use crate::layout::{self, Deployment};
use crate::limits::{CENSUS_INTERVAL, REQUEST_COMMANDS_MAX, SHARDS_MAX};
use crate::map::{ShardId, VBucketMap};

/// Several Redis processes as one. Cheap to clone: all clones share the connections.
///
/// # Examples
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use taba_shard::{Bootstrap, ShardUrl, Shards, ShardsOptions};
///
/// let urls = ["redis://127.0.0.1:6379", "redis://127.0.0.1:6380"];
/// let urls = urls.iter().map(|url| ShardUrl::new(url)).collect::<Result<Vec<_>, _>>()?;
/// let options = ShardsOptions { bootstrap: Bootstrap::IfEmpty, ..ShardsOptions::default() };
/// let shards = Shards::connect(urls, options).await?;
/// let data = shards.data("shop")?;
/// data.set("greeting", "hello").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Shards {
    inner: Arc<Inner>,
}

struct Inner {
    options: ShardsOptions,
    topology: Arc<dyn Topology>,
    links: Vec<ShardLink>,
    view: RwLock<Arc<View>>,
    /// When the last census began; held while one is taken.
    census: tokio::sync::Mutex<Option<Instant>>,
    /// Why the last census did not hear all shards.
    silence: Mutex<String>,
}

impl Shards {
    /// Connects to shards at fixed addresses: the first is shard 0.
    ///
    /// # Errors
    /// [`ConnectError`] when a shard cannot be reached or is not safe, or when they do not hold one deployment with
    /// this number of VBuckets.
    pub async fn connect(addresses: Vec<ShardUrl>, options: ShardsOptions) -> Result<Self, ConnectError> {
        Self::connect_to(Arc::new(StaticTopology::new(addresses)), options).await
    }

    /// Connects to the shards of a topology.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    /// A bootstrap that was under way is left unfinished; connecting again goes on with it.
    pub async fn connect_to(
        topology: Arc<dyn Topology>,
        options: ShardsOptions,
    ) -> Result<Self, ConnectError> {
        let shards = topology.shards();
        if !(1..=SHARDS_MAX).contains(&shards) {
            return Err(ConnectError::Shards { shards });
        }
        let link = |shard| ShardLink::new(ShardId(shard as u16), Arc::clone(&topology), &options);
        let links: Vec<ShardLink> = (0..shards).map(link).collect();
        let taken = take_census(&links, options.vbuckets).await?;
        let silence = taken.silence_words();
        let view = match (taken.found, options.bootstrap) {
            (CensusOutcome::All(view), _) => view,
            (CensusOutcome::Nothing | CensusOutcome::Unfinished(_), Bootstrap::Refuse) => {
                return Err(ConnectError::Empty);
            }
            (CensusOutcome::Nothing, Bootstrap::IfEmpty) => {
                bootstrap(&links, options.vbuckets, random()).await?
            }
            (CensusOutcome::Unfinished(deployment), Bootstrap::IfEmpty) => {
                bootstrap(&links, options.vbuckets, deployment.id).await?
            }
        };
        for shard in view.silent() {
            let (shard, cause) = (topology.name(*shard), silence.as_str());
            tracing::warn!(shard, cause, "a shard is away; its vbuckets wait for it, the others go on");
        }
        for (vbucket, shard) in view.damaged() {
            let (vbucket, shard) = (vbucket.index(), topology.name(shard));
            tracing::error!(vbucket, shard, "a vbucket is damaged; the others go on. See taba-server check");
        }
        let (view, census) = (RwLock::new(Arc::new(view)), tokio::sync::Mutex::default());
        let silence = Mutex::new(silence);
        Ok(Self { inner: Arc::new(Inner { options, topology, links, view, census, silence }) })
    }

    /// Makes a deployment on empty shards, or goes on with one that was not finished; on one that is there, does
    /// nothing.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn bootstrap(addresses: Vec<ShardUrl>, options: ShardsOptions) -> Result<Self, ConnectError> {
        Self::connect(addresses, ShardsOptions { bootstrap: Bootstrap::IfEmpty, ..options }).await
    }

    /// How many VBuckets there are.
    pub fn vbuckets(&self) -> VBuckets {
        self.inner.options.vbuckets
    }

    /// How many shards there are.
    pub fn count(&self) -> usize {
        self.inner.links.len()
    }

    /// Who owns which VBucket, as far as is known.
    pub fn view(&self) -> Arc<View> {
        // A view is replaced as one, so a panic leaves it whole.
        Arc::clone(&self.inner.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks every shard which VBuckets it holds, and follows what they say. What a shard held that does not answer
    /// now, it holds still.
    ///
    /// # Errors
    /// [`ConnectError`]; what is not known any better stays as it was.
    pub async fn census(&self) -> Result<(), ConnectError> {
        let mut last = self.inner.census.lock().await;
        *last = Some(monotonic());
        let outcome = self.follow_census().await;
        if let Err(error) = &outcome {
            // A message, replaced as one.
            *self.inner.silence.lock().unwrap_or_else(PoisonError::into_inner) = taba_core::causes(error);
        }
        outcome
    }

    async fn follow_census(&self) -> Result<(), ConnectError> {
        let mut taken = take_census(&self.inner.links, self.vbuckets()).await?;
        let CensusOutcome::All(view) = taken.found else { return Err(ConnectError::Empty) };
        // Replaced as one, at the end: a panic before leaves the old one.
        let mut old = self.inner.view.write().unwrap_or_else(PoisonError::into_inner);
        if view.deployment().id != old.deployment().id {
            let (found, expected) = (view.deployment().id, old.deployment().id);
            return Err(ConnectError::Replaced { found, expected });
        }
        let view = view.over(&old);
        for shard in old.silent().iter().filter(|shard| !view.silent().contains(shard)) {
            tracing::info!(shard = self.inner.topology.name(*shard), "a shard that was away has answered");
        }
        *old = Arc::new(view);
        taken.silence.pop().map_or(Ok(()), |(_, error)| Err(error.into()))
    }

    /// A census because something was not where it was looked for; not more often than each [`CENSUS_INTERVAL`].
    pub(crate) async fn census_after_a_miss(&self) {
        let is_due = |last: &Option<Instant>| {
            last.is_none_or(|last| monotonic().saturating_duration_since(last) >= CENSUS_INTERVAL)
        };
        // A census that runs now brings the answer.
        if !self.inner.census.try_lock().is_ok_and(|last| is_due(&last)) {
            return;
        }
        if let Err(error) = self.census().await {
            tracing::warn!(error = taba_core::causes(&error), "a census failed; the old view stays");
        }
    }

    pub(crate) fn options(&self) -> &ShardsOptions {
        &self.inner.options
    }

    pub(crate) fn place(&self, vbucket: VBucket) -> Location {
        self.view().place(vbucket)
    }

    /// What an operator calls the shard that keeps the VBucket, or those that may.
    pub(crate) fn place_name(&self, vbucket: VBucket) -> String {
        let view = self.view();
        match view.place(vbucket) {
            Location::Owned(Owner { shard, .. }) | Location::Damaged(shard) => {
                self.inner.topology.name(shard)
            }
            Location::Unknown => self.names(view.silent()),
        }
    }

    /// Why the location of a VBucket is unknown.
    pub(crate) fn unanswered(&self) -> LinkError {
        let cause = self.inner.silence.lock().unwrap_or_else(PoisonError::into_inner).clone();
        LinkError::Unanswered { shards: self.names(self.view().silent()), cause }
    }

    fn names(&self, shards: &[ShardId]) -> String {
        let names: Vec<String> = shards.iter().map(|shard| self.inner.topology.name(*shard)).collect();
        names.join(", ")
    }

    pub(crate) fn link(&self, shard: ShardId) -> &ShardLink {
        &self.inner.links[usize::from(shard.0)]
    }
}

impl fmt::Debug for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shards")
            .field("options", &self.inner.options)
            .field("links", &self.inner.links)
            .finish()
    }
}

/// A census, and the shards that did not answer.
struct CensusReport {
    found: CensusOutcome,
    silence: Vec<(ShardId, LinkError)>,
}

impl CensusReport {
    fn silence_words(&self) -> String {
        let words: Vec<String> = self.silence.iter().map(|(_, error)| taba_core::causes(error)).collect();
        words.join("; ")
    }
}

async fn take_census(links: &[ShardLink], vbuckets: VBuckets) -> Result<CensusReport, ConnectError> {
    let mut census = Census::new(vbuckets, links.len());
    let answers = futures::future::join_all(links.iter().map(|link| ask(link, vbuckets))).await;
    let mut silence = Vec::new();
    for (link, answer) in links.iter().zip(answers) {
        match answer {
            Ok(answer) => {
                census.answer(link.shard(), answer.held);
                answer.damaged.into_iter().for_each(|vbucket| census.damaged(link.shard(), vbucket));
            }
            // What passes by itself is waited for; what an operator has to mend is told at once.
            Err(error) if matches!(error.remedy(), Remedy::Wait(_)) => {
                silence.push((link.shard(), error));
            }
            Err(error) => return Err(error.into()),
        }
    }
    match census.finish() {
        Ok(found) => Ok(CensusReport { found, silence }),
        Err(CensusError::Incomplete { shard }) => {
            let error = silence.into_iter().find(|(silent, _)| *silent == shard);
            Err(error.map_or(CensusError::Incomplete { shard }.into(), |(_, error)| error.into()))
        }
        Err(error) => Err(error.into()),
    }
}

/// What one shard holds: one entry for each VBucket.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) held: Vec<Option<HeldVBucket>>,
    pub(super) damaged: Vec<VBucket>,
}

/// What one shard holds.
pub(super) async fn ask(link: &ShardLink, vbuckets: VBuckets) -> Result<Answer, LinkError> {
    let shard = link.shard();
    let all: Vec<VBucket> = vbuckets.iter().collect();
    let mut answer = Answer::default();
    for some in all.chunks(REQUEST_COMMANDS_MAX) {
        let question = |vbucket: &VBucket| {
            let mut command = cmd("HMGET");
            let fields = [layout::VERSION, layout::OWN, layout::MOVED, layout::OF];
            command.arg(keys::hash(*vbucket)).arg(&fields);
            command
        };
        let answered = link.request(some.iter().map(question).collect()).await?;
        for (vbucket, reply) in some.iter().zip(answered.replies) {
            let held = match reply {
                // A key of another type under this name was not written by a store.
                Reply::Refused { code, .. } if code == "WRONGTYPE" => None,
                Reply::Refused { code, detail } => {
                    let source = super::error::RedisRefusal { code, detail };
                    return Err(LinkError::Refused { shard, source });
                }
                reply => read_held(reply),
            };
            if held.is_none() {
                answer.damaged.push(*vbucket);
            }
            answer.held.push(held.unwrap_or(None));
        }
    }
    Ok(answer)
}

/// Reads version, epoch, moved and deployment. The outer `None`: not what a store writes.
fn read_held(reply: Reply) -> Option<Option<HeldVBucket>> {
    let Reply::List(items) = reply else { return None };
    let [version, own, moved, of] = <[Reply; 4]>::try_from(items).ok()?;
    match (version, own, moved, of) {
        (Reply::Nothing, Reply::Nothing, Reply::Nothing, Reply::Nothing) => Some(None),
        (Reply::Bytes(version), Reply::Bytes(own), moved, Reply::Bytes(of)) => Some(Some(HeldVBucket {
            epoch: layout::read_epoch(&own)?,
            is_moved: moved != Reply::Nothing,
            is_written: layout::read_version(&version)? != Version::NEVER,
            of: layout::read_deployment(&of)?,
        })),
        _ => None,
    }
}

/// The shards in the order in which the VBuckets are spread over them.
///
/// The first Server to connect names each Redis. On the one with the lowest name, the first Server stores the order of its
/// list, and all others take that order: so several Servers that start at once on empty shards make one deployment,
/// whatever the order of their lists.
async fn planned(links: &[ShardLink]) -> Result<Planned<'_>, ConnectError> {
    let mut named: Vec<(String, &ShardLink)> = Vec::with_capacity(links.len());
    for link in links {
        let name = first_come(link, keys::SHARD_NAME, &format!("{:016x}", random())).await?;
        if let Some((_, first)) = named.iter().find(|(known, _)| *known == name) {
            return Err(ConnectError::Same { first: first.shard(), second: link.shard() });
        }
        named.push((name, link));
    }
    let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
    let (_, keeper) = named.iter().min_by_key(|(name, _)| name).expect("there is at least one shard");
    let plan = first_come(keeper, keys::PLAN, &names.join(" ")).await?;
    let find = |wanted: &str| named.iter().find(|(name, _)| name == wanted).map(|(_, link)| *link);
    let in_order: Option<Vec<&ShardLink>> = plan.split(' ').map(find).collect();
    match in_order.filter(|in_order| in_order.len() == links.len()) {
        Some(in_order) => Ok(Planned { in_order, keeper }),
        None => Err(ConnectError::OtherPlan { keeper: keeper.shard() }),
    }
}

/// An order of shards, and the one that keeps it until the deployment is made.
struct Planned<'a> {
    in_order: Vec<&'a ShardLink>,
    keeper: &'a ShardLink,
}

/// The value of a key, which is set to this text if it has none.
async fn first_come(link: &ShardLink, key: &str, text: &str) -> Result<String, ConnectError> {
    let (mut set, mut get) = (cmd("SETNX"), cmd("GET"));
    set.arg(key).arg(text);
    get.arg(key);
    let shard = link.shard();
    match link.request(vec![set, get]).await?.replies.pop() {
        Some(Reply::Bytes(found)) => Ok(String::from_utf8_lossy(&found).into_owned()),
        Some(Reply::Refused { code, detail }) => {
            let source = super::error::RedisRefusal { code, detail };
            Err(LinkError::Refused { shard, source }.into())
        }
        _ => Err(LinkError::Answer { shard }.into()),
    }
}

/// Makes all VBuckets where there are none, spread evenly, and says in each that it is done when all are there.
async fn bootstrap(links: &[ShardLink], vbuckets: VBuckets, id: u64) -> Result<View, ConnectError> {
    let Planned { in_order, keeper } = planned(links).await?;
    // Another may have made it all since the census, and have taken its plan away.
    if let CensusOutcome::All(view) = take_census(links, vbuckets).await?.found {
        return Ok(view);
    }
    let map = VBucketMap::even(vbuckets, links.len())?;
    let new = Deployment { vbuckets: vbuckets.count(), id, is_new: true };
    // Of several Servers that bootstrap at once, the one that makes the first VBucket names the deployment.
    let first = vbuckets.get(0).expect("there are at least 64");
    let link = in_order[usize::from(map.owner(first).0)];
    let damaged = |vbucket| {
        let shard = in_order[usize::from(map.owner(vbucket).0)].shard();
        ConnectError::Damaged { shard, vbucket }
    };
    let Reply::Bytes(of) = link.one(create(first, new)).await? else { return Err(damaged(first)) };
    let of = layout::read_deployment(&of).ok_or_else(|| damaged(first))?;
    if of.vbuckets != vbuckets.count() {
        let (shard, found, expected) = (link.shard(), of.vbuckets, vbuckets.count());
        return Err(CensusError::VBuckets { shard, found, expected }.into());
    }
    let new = Deployment { id: of.id, ..new };
    let old = Deployment { is_new: false, ..new };
    for step in [create, finish] {
        for (place, link) in in_order.iter().enumerate() {
            let owned: Vec<VBucket> = map.owned_by(ShardId(place as u16)).collect();
            for some in owned.chunks(REQUEST_COMMANDS_MAX) {
                let calls = some.iter().map(|vbucket| step(*vbucket, new)).collect();
                for (vbucket, reply) in some.iter().zip(link.eval(calls).await?.replies) {
                    let is_fine = match reply {
                        Reply::Bytes(of) => {
                            layout::read_deployment(&of).is_some_and(|of| of == new || of == old)
                        }
                        Reply::Integer(_) => true,
                        Reply::Refused { code, detail } => {
                            let source = super::error::RedisRefusal { code, detail };
                            return Err(LinkError::Refused { shard: link.shard(), source }.into());
                        }
                        _ => false,
                    };
                    if !is_fine {
                        return Err(damaged(*vbucket));
                    }
                }
            }
        }
    }
    let mut forget = cmd("DEL");
    forget.arg(keys::PLAN);
    keeper.request(vec![forget]).await?;
    tracing::info!(shards = links.len(), vbuckets = vbuckets.count(), "bootstrapped a deployment");
    match take_census(links, vbuckets).await?.found {
        CensusOutcome::All(view) => Ok(view),
        CensusOutcome::Nothing | CensusOutcome::Unfinished(_) => Err(ConnectError::Empty),
    }
}

fn create(vbucket: VBucket, new: Deployment) -> Cmd {
    let mut call = scripts::CREATE.call(&[keys::hash(vbucket)]);
    call.arg(layout::put_version(Version::NEVER)).arg(layout::FIRST_EPOCH);
    call.arg(layout::put_deployment(new));
    call
}

fn finish(vbucket: VBucket, new: Deployment) -> Cmd {
    let mut call = scripts::FINISH.call(&[keys::hash(vbucket)]);
    call.arg(layout::put_deployment(new));
    call.arg(layout::put_deployment(Deployment { is_new: false, ..new }));
    call
}
