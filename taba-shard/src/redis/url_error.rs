//! [`UrlError`]: why a text names no Redis.

/// Why a text is no URL of a Redis. The text is not repeated: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// It has another form.
    #[error(
        "this is no URL of a Redis; it looks like redis://:password@127.0.0.1:6379, redis+sentinel://HOST+HOST/MASTER or \
         redis+cluster://HOST+HOST, with + between the hosts of one URL"
    )]
    Form,
    /// It is to be named by Sentinels, and has another form.
    #[error(
        "this is no URL of a Redis that Sentinels name; it looks like \
         redis+sentinel://:password@10.0.0.1:26379+10.0.0.2:26379+10.0.0.3:26379/MASTER"
    )]
    Sentinel,
    /// It is to be a Redis Cluster, and has another form.
    #[error(
        "this is no URL of a Redis Cluster; it looks like redis+cluster://:password@10.0.0.1:6379+10.0.0.2:6379, without a \
         database"
    )]
    Cluster,
    /// It requires TLS.
    #[error("rediss:// requires TLS, which this build does not support; use a TLS proxy, or use redis://")]
    Tls,
}
