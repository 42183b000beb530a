import com.google.googlejavaformat.java.Formatter;
import com.google.googlejavaformat.java.ImportOrderer;
import com.google.googlejavaformat.java.JavaFormatterOptions;
import com.google.googlejavaformat.java.RemoveUnusedImports;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/** Checks ("check") or rewrites ("fix") every Java source below a root with google-java-format. */
public final class Format {
  public static void main(String[] args) throws Exception {
    boolean fix = args[0].equals("fix");
    Path root = Path.of(args[1]);
    var formatter = new Formatter(JavaFormatterOptions.defaultOptions());
    List<Path> sources;
    try (var walk = Files.walk(root)) {
      sources =
          walk.filter(p -> p.toString().endsWith(".java"))
              .filter(p -> !root.relativize(p).toString().matches("(.*/)?target/.*"))
              .sorted()
              .toList();
    }
    int wrong = 0;
    for (Path source : sources) {
      String text = Files.readString(source);
      String tidy =
          formatter.formatSource(
              RemoveUnusedImports.removeUnusedImports(
                  ImportOrderer.reorderImports(text, JavaFormatterOptions.Style.GOOGLE)));
      if (tidy.equals(text)) {
        continue;
      }
      wrong++;
      if (fix) {
        Files.writeString(source, tidy);
      }
      System.err.println((fix ? "formatted " : "not formatted: ") + root.relativize(source));
    }
    if (wrong > 0 && !fix) {
      System.err.println("Run: mvn -N -Dformat=fix validate");
      System.exit(1);
    }
  }
}
