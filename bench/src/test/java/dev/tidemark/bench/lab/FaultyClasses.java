package dev.tidemark.bench.lab;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.regex.Pattern;
import javax.tools.JavaCompiler;
import javax.tools.StandardJavaFileManager;
import javax.tools.ToolProvider;

/**
 * Classes of the project with a fault in them, compiled into a folder of their own that goes in
 * front of the class path: nothing of it is in what is shipped.
 */
public final class FaultyClasses {
  private static final Path ROOT = Path.of(System.getProperty("tidemark.root"));

  /**
   * A change of one source file.
   *
   * @param file from the project's root
   * @param right what is there, exactly once; nothing for no change
   * @param wrong what is to be there instead
   */
  public record Patch(String file, String right, String wrong) {
    private String apply() throws IOException {
      String text = Files.readString(ROOT.resolve(file));
      if (!right.isEmpty()) {
        assertEquals(
            2, text.split(Pattern.quote(right), -1).length, "not in " + file + " once: " + right);
        text = text.replace(right, wrong);
      }
      return text;
    }
  }

  private FaultyClasses() {}

  /**
   * Compiles what patches change, each another file.
   *
   * @param folder there already, where the sources and classes go
   */
  public static void compile(List<Patch> patches, Path folder) throws IOException {
    for (Patch patch : patches) {
      Path source = folder.resolve(Path.of(patch.file).getFileName());
      Files.writeString(source, patch.apply());
      JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
      var messages = new StringWriter();
      try (StandardJavaFileManager files = compiler.getStandardFileManager(null, null, null)) {
        boolean compiled =
            compiler
                .getTask(
                    messages,
                    files,
                    null,
                    List.of(
                        "-d",
                        folder.toString(),
                        "-cp",
                        System.getProperty("java.class.path"),
                        "-proc:none"),
                    null,
                    files.getJavaFileObjects(source))
                .call();
        assertTrue(compiled, messages.toString());
      }
    }
  }
}
