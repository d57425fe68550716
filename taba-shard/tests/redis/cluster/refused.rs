//! Which clusters are connected to, and which are refused.

use taba_core::{Remedy, Store, causes};
use taba_shard::shard_map::ShardMap;
use taba_shard::{Bootstrap, ConnectError, ShardUrl, ShardedRedis, Shards};
use taba_tests::redis::{Options, Redis, RedisCluster};

use super::{CALM, place, urls};
use crate::kit::{self, commit, vbucket};

pub(super) async fn what_is_no_cluster_or_no_whole_one_is_refused_and_says_why() {
    let cluster = RedisCluster::start(3, 0, CALM);
    let refused = async |urls: &[String], words: &[&str]| {
        let urls = urls.iter().map(|url| ShardUrl::new(url).unwrap()).collect();
        let error = Shards::connect(urls, kit::options()).await.unwrap_err();
        let said = causes(&error);
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        error.remedy()
    };
    // A node that is named as if it stood alone, and a Redis that stands alone and is named as a node.
    let node = cluster.nodes[1].url();
    let lasting =
        refused(std::slice::from_ref(&node), &["is a node of a redis cluster", "redis+cluster://"]).await;
    assert_eq!(lasting, Remedy::GiveUp);
    let alone = Redis::start(Options::durable());
    let url = format!("redis+cluster://127.0.0.1:{}", alone.port());
    let lasting = refused(&[url], &["cluster support disabled", &alone.port().to_string()]).await;
    assert_eq!(lasting, Remedy::GiveUp);
    let lasting = refused(&[cluster.url(), alone.url()], &["the only one", "of the 2 URLs"]).await;
    assert_eq!(lasting, Remedy::GiveUp);
    let nobody = format!("redis+cluster://127.0.0.1:{}", taba_tests::free_port());
    assert!(matches!(refused(&[nobody], &["no node of redis+cluster://"]).await, Remedy::Wait(_)));
    // Nothing was made by all that; and one of the seeds suffices.
    assert!(cluster.nodes.iter().all(|node| node.command(&["DBSIZE"]) == "0"));
    let half = format!("redis+cluster://127.0.0.1:{}+127.0.0.1:{}", alone.port(), cluster.nodes[2].port());
    let mut careful = kit::options();
    careful.bootstrap = Bootstrap::Refuse;
    let error = Shards::connect(vec![ShardUrl::new(&half).unwrap()], careful).await.unwrap_err();
    assert!(matches!(error, ConnectError::Empty), "{error:?}");
    // Several at once make one deployment.
    let all =
        futures::future::join_all((0..4).map(|_| Shards::connect(urls(&cluster), kit::options()))).await;
    let ids: Vec<_> = all.iter().map(|shards| shards.as_ref().unwrap().view().deployment()).collect();
    assert!(ids.iter().all(|id| *id == ids[0] && !id.is_new), "{ids:?}");
    let sizes = cluster.nodes.iter().map(|node| node.command(&["DBSIZE"]).parse::<u32>().unwrap());
    assert_eq!(sizes.sum::<u32>(), 64, "the vbuckets, and nothing beside them");
    // Who moves what is the Cluster's own affair.
    let shards = all.into_iter().next().unwrap().unwrap();
    assert!(shards.is_cluster() && shards.map().is_none());
    assert!(matches!(shards.survey().await, Err(ConnectError::ClusterMoves)));
    assert!(matches!(shards.add_shard("127.0.0.1:1").await, Err(ConnectError::ClusterMoves)));
    assert!(matches!(shards.change_map(ShardMap::balanced).await, Err(ConnectError::ClusterMoves)));
    // A slot that no node has.
    let (slot, from, _) = place(&cluster, 7);
    assert_eq!(cluster.nodes[from].command(&["CLUSTER", "DELSLOTS", &slot.to_string()]), "OK");
    let others = (0..3).filter(|node| *node != from);
    others.for_each(|node| drop(cluster.nodes[node].command(&["CLUSTER", "DELSLOTS", &slot.to_string()])));
    let words = [format!("slot {slot}, of vb0007"), "redis-cli --cluster check".to_owned()];
    let remedy = refused(&[cluster.url()], &words.each_ref().map(String::as_str)).await;
    assert!(matches!(remedy, Remedy::Wait(_)));
    let store = ShardedRedis::new(shards);
    let error = store.commit(vbucket(7), commit(0, 1, &["a"])).await.unwrap_err();
    assert!(matches!(error.remedy(), Remedy::Wait(_)), "{error:?}");
}
