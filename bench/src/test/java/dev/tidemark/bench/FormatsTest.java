package dev.tidemark.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/** Messages have ASCII digits and points in every locale: no format leaves it to the default. */
class FormatsTest {
  private static final Path ROOT = Path.of(System.getProperty("tidemark.root"));

  /** These format with the default locale, which is the user's. */
  private static final Pattern DEFAULT_LOCALE =
      Pattern.compile(
          "\\.formatted\\(|(?:String\\.format|\\.printf|new Formatter)\\(\\s*+(?!Locale\\.ROOT)"
              + "|to(?:Lower|Upper)Case\\(\\)");

  @Test
  void noneDependsOnTheLocale() throws IOException {
    try (Stream<Path> files =
        Stream.of("ffm-bindings", "engine", "bench")
            .map(module -> ROOT.resolve(module).resolve("src/main/java"))
            .flatMap(FormatsTest::walk)) {
      List<String> found =
          files
              .filter(file -> file.toString().endsWith(".java"))
              .flatMap(
                  file ->
                      DEFAULT_LOCALE
                          .matcher(read(file))
                          .results()
                          .map(hit -> ROOT.relativize(file) + ": " + hit.group().strip()))
              .toList();
      assertEquals(List.of(), found, "use String.format(Locale.ROOT, ...)");
    }
  }

  private static Stream<Path> walk(Path folder) {
    try {
      return Files.walk(folder);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static String read(Path file) {
    try {
      return Files.readString(file);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
