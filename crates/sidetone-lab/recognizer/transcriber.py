"""What one caller's recognizer does with samples: cuts them into utterances and decodes those."""

import array
import itertools
import math
import operator
import re
import tempfile

from pocketsphinx import Decoder, Endpointer

from phrases import write_arpa

# What the acoustic model was trained on.
MODEL_HZ = 16_000
# Where its cepstral mean begins: near to what it comes to on these prompts.
INITIAL_MEAN = "48,30,-26,41,-19,7,-6,-8,12,-14,2,-8,-5"
# What the decoder counts, per second.
FRAMES = 100
# A line that is still to the last bit for so many seconds: nobody speaks, and none of it is heard with what comes next.
STILL = 0.5


def load():
    """A decoder with the model that comes with the package."""
    return Decoder(samprate=MODEL_HZ, loglevel="FATAL")


def listen_for(decoder, phrases):
    """Has the decoder expect the words of these phrases, in an order like theirs; without any, what the model expects."""
    known = [[word for word in phrase.split() if decoder.lookup_word(word)] for phrase in phrases]
    if any(known):
        with tempfile.NamedTemporaryFile(suffix=".arpa") as file:
            write_arpa(file.name, known)
            decoder.add_lm_file("phrases", file.name)
        decoder.activate_search("phrases")
    else:
        decoder.activate_search("_default")


class Doubler:
    """8 kHz to 16 kHz: the samples stay as they are, and between two of them goes what a sinc under a Hann window of
    REACH samples to each side makes of their neighbours. Its output is REACH samples late, which it leaves out."""

    REACH = 12

    def __init__(self):
        places = [tap + 0.5 for tap in range(-self.REACH, self.REACH)]
        sinc = [math.sin(math.pi * x) / (math.pi * x) for x in places]
        window = [0.5 + 0.5 * math.cos(math.pi * x / self.REACH) for x in places]
        self.taps = list(map(operator.mul, sinc, window))
        self.kept = [0] * (self.REACH - 1)

    def double(self, samples):
        known = self.kept + list(samples)
        out = array.array("h")
        for at in range(len(known) - 2 * self.REACH + 1):
            between = sum(map(operator.mul, self.taps, known[at : at + 2 * self.REACH]))
            out.append(known[at + self.REACH - 1])
            out.append(max(-32768, min(32767, round(between))))
        self.kept = known[len(known) - 2 * self.REACH + 1 :] if len(known) >= 2 * self.REACH else known
        return out


class Transcriber:
    """Hears one caller. Of the same sound after a stillness it hears the same, whatever it heard before and whenever that was."""

    def __init__(self, decoder, hz, phrases):
        if hz not in (8_000, MODEL_HZ):
            raise ValueError(f"{hz} Hz: only 8000 and {MODEL_HZ} are known")
        listen_for(decoder, phrases)
        # More is left of the last caller than the mean.
        decoder.reinit_feat()
        decoder.set_cmn(INITIAL_MEAN)
        self.decoder = decoder
        self.hz = hz
        self.doubler = Doubler() if hz == 8_000 else None
        self.endpointer = Endpointer(sample_rate=MODEL_HZ)
        self.frame = round(self.endpointer.frame_length * hz)
        # Zeros since the last other sample, and those at the end of them that do not fill a frame.
        self.still = 0
        self.held = array.array("h")
        # Samples that were heard, and that were left out between them.
        self.heard = 0
        self.left_out = 0
        self.waiting = b""
        self.speaking = False
        self.start = 0.0

    def hear(self, pcm):
        """Takes s16le samples. Answers the partial text, or of an utterance that ended meanwhile its words."""
        ended = []
        for zero, run in itertools.groupby(array.array("h", pcm), lambda sample: sample == 0):
            run = array.array("h", run)
            ended += self._wait(run) if zero else self._begin(run)
        return ("words", ended) if ended else ("partial", self._partial())

    def _wait(self, zeros):
        """Hears zeros, as far as they fill frames."""
        self.still += len(zeros)
        self.held += zeros
        whole = (self.heard + len(self.held)) // self.frame * self.frame - self.heard
        frames, self.held = self.held[:max(whole, 0)], self.held[max(whole, 0):]
        return self._hear(frames)

    def _begin(self, sound):
        """Hears samples that are none. After a stillness they begin a frame, wherever in the call that is, and with the mean
        of a beginning: cut into other frames, or after other sounds, the same sound may make other words."""
        if self.still >= STILL * self.hz and not self.speaking:
            self.left_out += len(self.held)
            self.decoder.set_cmn(INITIAL_MEAN)
            before = []
        else:
            before = self._hear(self.held)
        self.still = 0
        self.held = array.array("h")
        return before + self._hear(sound)

    def _hear(self, samples):
        self.heard += len(samples)
        if self.doubler:
            samples = self.doubler.double(samples)
        self.waiting += samples.tobytes()
        size = self.endpointer.frame_bytes
        ended = []
        while len(self.waiting) >= size:
            frame, self.waiting = self.waiting[:size], self.waiting[size:]
            ended += self._decode(self.endpointer.process(frame))
        return ended

    def finish(self):
        """The words of what is left at the end."""
        words = self._hear(self.held)
        words += self._decode(self.endpointer.end_stream(self.waiting)) if self.waiting else []
        self.waiting = b""
        return words + self._end()

    def _decode(self, speech):
        if speech is None:
            return []
        if not self.speaking:
            self.speaking = True
            self.start = self.endpointer.speech_start + self.left_out / self.hz
            self.decoder.start_utt()
        self.decoder.process_raw(speech)
        return [] if self.endpointer.in_speech else self._end()

    def _end(self):
        if not self.speaking:
            return []
        self.speaking = False
        self.decoder.end_utt()
        exp = self.decoder.get_logmath().exp
        words = []
        for part in self.decoder.seg() or []:
            if word := spoken(part.word):
                words.append({
                    "word": word,
                    "start": self.start + part.start_frame / FRAMES,
                    "end": self.start + (part.end_frame + 1) / FRAMES,
                    "conf": min(1.0, exp(part.prob)),
                })
        return words

    def _partial(self):
        hypothesis = self.decoder.hyp() if self.speaking else None
        words = hypothesis.hypstr.split() if hypothesis else []
        return " ".join(filter(None, map(spoken, words)))


def spoken(word):
    """The word without the number of its pronunciation; silence and noise are none."""
    return "" if word[0] in "<[+" else re.sub(r"\(\d+\)$", "", word)
