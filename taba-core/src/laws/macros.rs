//! Laws to tests.

/// Makes a module with one `#[test]` for each law of a [`Handler`](crate::Handler).
///
/// `handler_laws!(name, handler, values)`: the module's name, an expression that makes the Handler, and a
/// [proptest strategy](crate::laws::samples) for the values of its events (`Clone + 'static`).
///
/// `handler_laws!(name, handler, values, older = [old, …])`: also checks that States of these older Handlers upgrade.
#[macro_export]
macro_rules! handler_laws {
    ($name:ident, $handler:expr, $values:expr $(, older = [$($old:expr),* $(,)?])? $(,)?) => {
        mod $name {
            #[allow(unused_imports, reason = "the expressions may or may not need what is around the macro")]
            use super::*;

            $crate::handler_laws!(@each $handler, $values,
                splitting order batching
                merge_associates merge_commutes merge_is_neutral
                projecting aggregate_associates aggregate_commutes aggregate_is_neutral
                values round_trip parts unknown_versions pruning compacting clamping clamping_many totality bounded closed);

            #[test]
            fn bounded_with_many_values() {
                if let Err(broken) = $crate::laws::check_bounded(&$handler, $values) {
                    panic!("{broken}");
                }
            }

            $(
                #[test]
                fn upgrading() {
                    $(
                        let law = |handler: &_, sample: &_| {
                            $crate::laws::handler::upgrading(handler, &$old, sample)
                        };
                        if let Err(broken) = $crate::laws::check(&$handler, $values, law) {
                            panic!("{broken}");
                        }
                    )*
                }
            )?
        }
    };
    (@each $handler:expr, $values:expr, $($law:ident)*) => {
        $(
            #[test]
            fn $law() {
                if let Err(broken) = $crate::laws::check(&$handler, $values, $crate::laws::handler::$law) {
                    panic!("{broken}");
                }
            }
        )*
    };
}

/// Makes a module with one `#[tokio::test]` for each law of a [`Store`](crate::Store).
///
/// `store_laws!(name, fixture)`: the module's name, and an expression that makes a
/// [`Fixture`](crate::laws::store::Fixture). The caller's crate needs tokio with its macros and a runtime.
#[macro_export]
macro_rules! store_laws {
    ($name:ident, $fixture:expr $(,)?) => {
        mod $name {
            #[allow(unused_imports, reason = "the expression may or may not need what is around the macro")]
            use super::*;

            $crate::store_laws!(@each $fixture,
                starts_empty atomic conditional racing durable stable consistent complete ordered paged isolated removing bounded listing upkeep kept_lists peeked);
        }
    };
    (@each $fixture:expr, $($law:ident)*) => {
        $(
            #[tokio::test]
            async fn $law() {
                if let Err(broken) = $crate::laws::store::$law(&mut $fixture).await {
                    panic!("{broken}");
                }
            }
        )*
    };
}
