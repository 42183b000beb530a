package dev.tidemark.engine;

import dev.tidemark.engine.bitmap.Bitmaps;
import dev.tidemark.ffm.Pages;
import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * What a program of the tests printed in a JVM of its own, on the class path: for what depends on
 * flags, or on nobody else's calls having shaped the compiled code.
 *
 * @param status the exit status
 * @param output standard output and error
 */
public record ChildJvm(int status, String output) {
  private static final Path ROOT = Path.of(System.getProperty("tidemark.root"));

  /** The project's flags, as an option. */
  public static final String FLAGS = "@" + ROOT.resolve("jdk-flags.txt");

  /** Runs the main method of a class among the tests. */
  public static ChildJvm run(List<String> options, Class<?> program)
      throws IOException, InterruptedException {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(options);
    String classes = location(Bitmaps.class) + ":" + location(Pages.class);
    Path tests = ROOT.resolve("engine/target/test-classes");
    command.addAll(List.of("-cp", classes + ":" + tests, program.getName()));
    Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
    try (InputStream stream = process.getInputStream()) {
      String output = new String(stream.readAllBytes());
      return new ChildJvm(process.waitFor(), output);
    } finally {
      process.destroyForcibly();
    }
  }

  private static String location(Class<?> type) {
    // On the module path this is the module's, whatever the class file was patched from.
    return Path.of(URI.create(type.getProtectionDomain().getCodeSource().getLocation().toString()))
        .toString();
  }
}
