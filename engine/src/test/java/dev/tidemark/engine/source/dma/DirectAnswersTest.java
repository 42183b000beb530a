package dev.tidemark.engine.source.dma;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class DirectAnswersTest {
  @ParameterizedTest
  @ValueSource(
      strings = {"6.8", "6.8.0", "6.12.117-1~deb12u1", "6.10-rc1", "6.18.44+", "7.3.4", "10.0"})
  void newKernelsAnswerAtAnyByte(String release) {
    assertEquals(8, DirectAnswers.alignment(release));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "6.7.12",
        "6.1.0-18-amd64",
        "5.14.0-427.el9.x86_64",
        "4.4.0",
        "6",
        "",
        "6.x",
        "linux",
        "99999999999.1",
        "6.7foo"
      })
  void olderKernelsAndUnknownOnesAnswerAtWords(String release) {
    assertEquals(64, DirectAnswers.alignment(release));
  }
}
