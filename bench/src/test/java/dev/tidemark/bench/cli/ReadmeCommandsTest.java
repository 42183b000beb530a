package dev.tidemark.bench.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** README's commands, run as they stand there, but for the jar's path. */
@Timeout(300)
class ReadmeCommandsTest {
  private static final Path ROOT = Path.of(System.getProperty("tidemark.root"));
  private static final String PROGRAM = "java @jdk-flags.txt -jar bench/target/tidemark.jar ";

  /** These measure for minutes; the lab's guests are in DeviceGuestTest. */
  private static final List<String> ELSEWHERE =
      List.of("ratios", "duel", "plots", "jmh", "--guest dmalog");

  static List<String> commands() throws IOException {
    try (Stream<String> lines = Files.lines(ROOT.resolve("README.md"))) {
      return lines
          .map(String::strip)
          .filter(line -> line.startsWith(PROGRAM))
          .map(line -> line.substring(PROGRAM.length()).replaceFirst("\\s+#.*", ""))
          .filter(line -> ELSEWHERE.stream().noneMatch(line::contains))
          .toList();
    }
  }

  @ParameterizedTest
  @MethodSource("commands")
  void works(String command) throws Exception {
    if (command.contains("--guest kvm")) {
      MigrateCommandTest.assumeKvm();
    }
    try (Program program = Program.start(command.split(" "))) {
      if (command.startsWith("receive")) {
        assertTrue(program.firstLine().startsWith("listening on "));
      } else {
        Program.Ended ended = program.end();
        assertEquals(0, ended.status(), ended.errors());
      }
    }
  }
}
