//! What `handler_laws!` and `store_laws!` say where the feature `laws` is missing.

/// Needs the feature `laws`.
#[macro_export]
macro_rules! handler_laws {
    ($($any:tt)*) => {
        compile_error!(
            "handler_laws! needs the feature `laws` of taba-core: under [dev-dependencies], taba-core = { path = \"…\", \
             features = [\"laws\"] }"
        );
    };
}

/// Needs the feature `laws`.
#[macro_export]
macro_rules! store_laws {
    ($($any:tt)*) => {
        compile_error!(
            "store_laws! needs the feature `laws` of taba-core: under [dev-dependencies], taba-core = { path = \"…\", \
             features = [\"laws\"] }"
        );
    };
}
