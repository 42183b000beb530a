package dev.tidemark.engine;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;

class ReadmeTest {
  private static final Path ROOT = Path.of(System.getProperty("tidemark.root"));

  private static String between(String text, String begin, String end) {
    int from = text.indexOf(begin) + begin.length();
    return text.substring(from, text.indexOf(end, from)).stripTrailing().stripIndent();
  }

  @Test
  void theExampleIsTheOneThatIsCompiled() throws IOException {
    String source =
        Files.readString(
            ROOT.resolve("engine/src/test/java/dev/tidemark/engine/ReadmeExample.java"));
    assertEquals(
        between(source, "// README begin\n", "  // README end"),
        between(Files.readString(ROOT.resolve("README.md")), "```java\n", "```"));
  }
}
