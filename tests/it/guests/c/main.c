/* Says who it is, copies a file, and ends with the number of its arguments. */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    printf("C says %s\n", getenv("WORD"));
    FILE *in = fopen("/in/note", "r"), *out = fopen("/out/note", "w");
    if (!in || !out) {
        perror("a file");
        return 100;
    }
    for (int letter; (letter = fgetc(in)) != EOF;) fputc(letter, out);
    fclose(out);
    return argc;
}
