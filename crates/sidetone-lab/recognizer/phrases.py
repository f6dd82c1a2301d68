"""Makes a language model of a list of phrases, as Vosk does of its `phrase_list`: bigrams with absolute discounting."""

import math
from collections import Counter

DISCOUNT = 0.5


def write_arpa(path, phrases):
    sentences = [["<s>", *phrase, "</s>"] for phrase in phrases if phrase]
    words = Counter(word for sentence in sentences for word in sentence[1:])
    pairs = Counter(pair for sentence in sentences for pair in zip(sentence, sentence[1:]))
    after = Counter()
    for (first, _), count in pairs.items():
        after[first] += count
    followers = Counter(first for first, _ in pairs)
    total = sum(words.values())

    def rest(word):
        return DISCOUNT * followers[word] / after[word]

    with open(path, "w", encoding="ascii") as file:
        print(f"\\data\\\nngram 1={len(words) + 1}\nngram 2={len(pairs)}\n\n\\1-grams:", file=file)
        print(f"-99 <s> {math.log10(rest('<s>')):.4f}", file=file)
        for word in sorted(words):
            back = f" {math.log10(rest(word)):.4f}" if after[word] else ""
            print(f"{math.log10(words[word] / total):.4f} {word}{back}", file=file)
        print("\n\\2-grams:", file=file)
        for (first, second), count in sorted(pairs.items()):
            likely = (count - DISCOUNT) / after[first] + rest(first) * words[second] / total
            print(f"{math.log10(likely):.4f} {first} {second}", file=file)
        print("\n\\end\\", file=file)
