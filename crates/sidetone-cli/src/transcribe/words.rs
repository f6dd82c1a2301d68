//! Splits text into words.

/// The words of a text: what is between spaces and punctuation.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_separator =
        |letter: char| !(letter.is_alphanumeric() || matches!(letter, '\'' | '’' | '-'));
    let words = text.split(is_separator);
    let words = words.map(|word| word.trim_matches(['\'', '’', '-']));
    words.filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_whole_and_have_no_punctuation_around_them() {
        let all = |text| words(text).collect::<Vec<_>>();
        assert_eq!(
            all("Stop, I don't want 'quotes' – non-stop!"),
            ["Stop", "I", "don't", "want", "quotes", "non-stop"]
        );
        assert!(all(" … - ' ").is_empty());
    }
}
