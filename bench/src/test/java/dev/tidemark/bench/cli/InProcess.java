package dev.tidemark.bench.cli;

import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.net.MalformedURLException;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/**
 * The command line in this process, with other classes in front of its own: for the lab, where a
 * JVM takes seconds to start. One at a time: it takes over what is printed.
 */
final class InProcess implements AutoCloseable {
  /** The project's classes come from the folder, or anew from where they are; others are shared. */
  private static final class Loader extends URLClassLoader {
    Loader(Path folder) throws MalformedURLException {
      super(urls(folder), InProcess.class.getClassLoader());
    }

    private static URL[] urls(Path folder) throws MalformedURLException {
      List<URL> urls = new ArrayList<>();
      urls.add(folder.toUri().toURL());
      for (String entry : System.getProperty("java.class.path").split(File.pathSeparator)) {
        urls.add(Path.of(entry).toUri().toURL());
      }
      return urls.toArray(URL[]::new);
    }

    @Override
    protected Class<?> loadClass(String name, boolean resolve) throws ClassNotFoundException {
      if (!name.startsWith("dev.tidemark.")) {
        return super.loadClass(name, resolve);
      }
      synchronized (getClassLoadingLock(name)) {
        Class<?> loaded = findLoadedClass(name);
        return loaded != null ? loaded : findClass(name);
      }
    }
  }

  /** What a command printed, and its status. */
  record Printed(int status, String output, String errors) {}

  /** Runs a command of this class path. */
  static Printed print(String... arguments) {
    PrintStream out = System.out;
    PrintStream err = System.err;
    var output = new ByteArrayOutputStream();
    var errors = new ByteArrayOutputStream();
    System.setOut(new PrintStream(output, true, StandardCharsets.UTF_8));
    System.setErr(new PrintStream(errors, true, StandardCharsets.UTF_8));
    try {
      int status = Tidemark.run(arguments);
      return new Printed(
          status, output.toString(StandardCharsets.UTF_8), errors.toString(StandardCharsets.UTF_8));
    } finally {
      System.setOut(out);
      System.setErr(err);
    }
  }

  private final PrintStream out = System.out;
  private final PrintStream err = System.err;
  private final ByteArrayOutputStream output = new ByteArrayOutputStream();
  private final ByteArrayOutputStream errors = new ByteArrayOutputStream();
  private final Loader loader;
  private Thread receiver;

  /**
   * How a command ended.
   *
   * @param summary the line of JSON that says so
   */
  record Ended(int status, String summary, String errors) {}

  /**
   * @param first a folder with classes that take precedence
   */
  InProcess(Path first) throws IOException {
    loader = new Loader(first);
    System.setOut(new PrintStream(output, true, StandardCharsets.UTF_8));
    System.setErr(new PrintStream(errors, true, StandardCharsets.UTF_8));
  }

  private int call(String... arguments) throws ReflectiveOperationException {
    try {
      return (int)
          loader
              .loadClass(Tidemark.class.getName())
              .getMethod("run", String[].class)
              .invoke(null, (Object) arguments);
    } catch (InvocationTargetException e) {
      throw new AssertionError(e.getCause());
    }
  }

  /** Starts a receiver; returns where it listens. */
  String receive() throws InterruptedException {
    receiver =
        Thread.ofPlatform()
            .daemon()
            .name("receiver")
            .start(
                () -> {
                  try {
                    call("receive", "--listen", "tcp:127.0.0.1:0", "--json");
                  } catch (ReflectiveOperationException e) {
                    throw new AssertionError(e);
                  }
                });
    return Json.object(line("listening")).get("listening").getAsString();
  }

  private String line(String key) throws InterruptedException {
    long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
    while (System.nanoTime() < deadline) {
      var found =
          output
              .toString(StandardCharsets.UTF_8)
              .lines()
              .filter(line -> line.startsWith("{") && Json.object(line).has(key))
              .findFirst();
      if (found.isPresent()) {
        return found.get();
      }
      Thread.sleep(10);
    }
    throw new AssertionError("no " + key + " in: " + output + errors);
  }

  /** Runs a command to its end, and the receiver's. */
  Ended run(String... arguments) throws ReflectiveOperationException, InterruptedException {
    int status = call(arguments);
    receiver.join(TimeUnit.SECONDS.toMillis(60));
    return new Ended(status, line("guest"), errors.toString(StandardCharsets.UTF_8));
  }

  @Override
  public void close() throws IOException {
    System.setOut(out);
    System.setErr(err);
    loader.close();
  }
}
