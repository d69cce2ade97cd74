//! Tests that a check of invariants is not blind: each spoils one field and expects the stop.

/// For each name a test that makes a stage, spoils it, checks it, and expects a panic with the text.
macro_rules! noticed {
    ($make:expr, |$whole:ident| $check:expr; $($name:ident: $text:literal, |$it:ident| $spoil:expr;)*) => {
        #[test]
        fn a_sound_stage_passes() {
            let $whole = &$make;
            $check;
        }

        $(
            #[test]
            #[should_panic(expected = $text)]
            fn $name() {
                let mut made = $make;
                {
                    let $it = &mut made;
                    $spoil;
                }
                let $whole = &made;
                $check;
            }
        )*
    };
}

pub(crate) use noticed;
